"""Fetching remote shards before they are needed, and keeping them while they are.

It follows the order in which batches are asked for. Whoever reads a shard that is not there yet
fetches it himself or waits for whoever does, so nothing here decides what is read: it only saves
waiting.
"""

from __future__ import annotations

import copy
import itertools
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.remote.cache import ShardCache
from simsiam_zoo.data.shards import Dataset, ShardSet
from simsiam_zoo.errors import InputError, ZooError

T = TypeVar("T")

CONNECTIONS = 4
"""Shards that one process fetches at a time."""

FREE_SHARDS = 2
"""Shards, of the largest size, for which room is left beside the pinned ones: for those who read
something else meanwhile. Without it they and the pins could wait for each other."""


def _following(
    order: Iterable[T], shards: ShardSet, cache: ShardCache, needs: Callable[[int], list[int]]
) -> Iterator[T]:
    """An order of batches which, while it is gone through, fetches what comes next.

    `needs` tells which shards to have for a batch, by its number; the first needed first.
    """
    ahead = _Ahead(shards, cache)
    try:
        for number, item in enumerate(order):
            ahead.want(needs(number))
            yield item
    finally:
        ahead.close()


def follow_plan(
    order: Iterator[T], shards: ShardSet, plan: SampleOrder, start: int, epochs: int, rank: int,
    world: int, in_flight: int,
) -> Iterator[T]:  # fmt: skip
    """`order` of training, with the current and the next windows' shards fetched and pinned.

    It has an item for each step from `start` (over all epochs) on; `in_flight` of them may be
    handed out and not be done. Of shards on disk it is returned as it is.
    """
    if (cache := shards.cache) is None:
        return order
    own = copy.copy(plan)  # whoever asks for ids goes through other windows of it

    def needs(number: int) -> list[int]:
        first = start + max(0, number - max(1, in_flight) + 1)
        return own.shards(first, start + number, epochs, rank, world)

    return _following(order, shards, cache, needs)


def follow_ids(order: Sequence[Sequence[int]], shards: ShardSet) -> Iterable[Sequence[int]]:
    """`order` of evaluation, batches of ids, with the next shard fetched."""
    if (cache := shards.cache) is None:
        return order

    def needs(number: int) -> list[int]:
        ids = np.concatenate(order[number : number + 64])
        places = shards.offsets.searchsorted(ids, "right") - 1
        return list(dict.fromkeys(places.tolist()))[:FREE_SHARDS]

    return _following(order, shards, cache, needs)


def limit_cache(dataset: Dataset, lanes: int, window: int, limit: int) -> None:
    """Bound the cache of a data set's remote shards, if there are any, in bytes.

    Raises InputError where the current and the next windows of shards in all lanes need more.
    """
    sets = [s for s in (dataset.train, dataset.test) if s is not None and s.cache is not None]
    for shards in sets:
        shards.cache = ShardCache(limit)
    if not sets:
        return
    fetched = [] if dataset.train.cache is None else sorted(dataset.train.bytes.tolist())
    largest = max(int(shards.bytes.max()) for shards in sets)
    # What suffices for any order of the shards: room for the largest ones.
    least = sum(fetched[-2 * lanes * window :]) + FREE_SHARDS * largest
    if limit < least:
        raise InputError(
            f"data.cache_gb = {limit / 1e9:g} is too small: the current and the next windows of"
            f" {window} shards in {lanes} lanes, and two shards beside, need"
            f" {least / 1e9:.6g} at most",
            f"Set data.cache_gb to {math.ceil(least / 1e6) / 1e3:g} or more, or read with a"
            " smaller data.window.",
        )


class _Ahead:
    """The threads that fetch, and the shards that are pinned."""

    def __init__(self, shards: ShardSet, cache: ShardCache) -> None:
        self._shards, self._cache = shards, cache
        self._changed = threading.Condition()
        self._closed = False
        self._wanted: list[int] = []
        # Shard → descriptor; None while it is fetched, and where it could not be had.
        self._pins: dict[int, int | None] = {}
        for _ in range(CONNECTIONS):  # daemons: none keeps a process that wants to end
            threading.Thread(target=self._fetch, daemon=True).start()

    def want(self, places: list[int]) -> None:
        """Have these pinned, the first ones first, and no others."""
        wanted = self._fitting(places)
        if wanted == self._wanted:
            return
        with self._changed:
            self._wanted = wanted
            for place in self._pins.keys() - set(wanted):
                if (descriptor := self._pins.pop(place)) is not None:
                    os.close(descriptor)
            self._changed.notify_all()

    def close(self) -> None:
        self.want([])
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fitting(self, places: list[int]) -> list[int]:
        """As many of them, in their order, as can be pinned at one time."""
        sizes = self._shards.bytes
        room, free = self._cache.limit, FREE_SHARDS * int(sizes.max())
        if room < int(sizes.sum()) + free:
            room -= free
        ends = itertools.accumulate(sizes[places].tolist())
        return [place for place, end in zip(places, ends, strict=True) if end <= room]

    def _next(self) -> int | None:
        return next((place for place in self._wanted if place not in self._pins), None)

    def _fetch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._next() is not None)
                if (place := self._next()) is None:
                    return
                self._pins[place] = None
            descriptor = self._pinned(place)
            with self._changed:
                if self._pins.get(place, -1) is None:
                    self._pins[place] = descriptor
                elif descriptor is not None:  # it is not wanted any more
                    os.close(descriptor)

    def _pinned(self, place: int) -> int | None:
        try:
            return self._cache.hold(self._shards.shards[place])
        except (ZooError, OSError):  # whoever needs the shard will try again, and say so
            return None
