"""Fetching remote shards before they are needed, and keeping them while they are.

It follows the order in which batches are asked for. Whoever reads a shard that is not there yet
fetches it himself or waits for whoever does, so nothing here decides what is read: it only saves
waiting.
"""

from __future__ import annotations

import copy
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.remote.cache import ShardCache
from simsiam_zoo.data.shards import Dataset, ShardSet
from simsiam_zoo.errors import InputError, ZooError

CONNECTIONS = 4
"""Shards that one process fetches at a time."""

FREE_SHARDS = 2
"""Shards, of the largest size, for which room is left beside the pinned ones: for those who read
something else meanwhile. Without it they and the pins could wait for each other."""


class Following:
    """An order of batches which, while it is gone through, fetches what comes next.

    Args:
        order: the sampler: what is handed to the workers, batch by batch.
        shards: what is read.
        needs: number of the batch in the order → the shards to have, the first needed first.
    """

    def __init__(self, order: Any, shards: ShardSet, needs: Callable[[int], list[int]]) -> None:
        self._order, self._shards, self._needs = order, shards, needs

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Any]:
        ahead = _Ahead(self._shards)
        try:
            for number, item in enumerate(self._order):
                ahead.want(self._needs(number))
                yield item
        finally:
            ahead.close()


def follow_plan(
    order: Any, shards: ShardSet, plan: SampleOrder, start: int, epochs: int, rank: int, world: int,
    in_flight: int,
) -> Any:  # fmt: skip
    """`order` of training, with the current and the next windows' shards fetched and pinned.

    Args:
        order: one item for each step from `start` (over all epochs) to the end of `epochs`.
        shards: what is read; on disk, `order` itself is returned.
        plan, rank, world: what is read when.
        in_flight: steps that may be handed out and not be done.
    """
    if shards.cache is None:
        return order

    own = copy.copy(plan)  # whoever asks for ids goes through other windows of it

    def needs(number: int) -> list[int]:
        first = start + max(0, number - max(1, in_flight) + 1)
        return own.shards(first, start + number, epochs, rank, world)

    return Following(order, shards, needs)


def follow_ids(order: Sequence[Sequence[int]], shards: ShardSet) -> Any:
    """`order` of evaluation, batches of ids, with the next shard fetched."""
    if shards.cache is None:
        return order

    def needs(number: int) -> list[int]:
        ids = np.concatenate(order[number : number + 64])
        places = shards.offsets.searchsorted(ids, "right") - 1
        return list(dict.fromkeys(places.tolist()))[:FREE_SHARDS]

    return Following(order, shards, needs)


def limit_cache(dataset: Dataset, plan: SampleOrder, limit: int, in_flight: int = 1) -> None:
    """Bound the cache of a data set's remote shards; do nothing where all are on disk.

    Args:
        dataset: what will be read.
        plan: in which order.
        limit: bytes of shards on disk.
        in_flight: steps that may be handed out and not be done.

    Raises:
        InputError: the bound is too small for the current and the next windows.
    """
    sets = [s for s in (dataset.train, dataset.test) if s is not None and s.cache is not None]
    for shards in sets:
        shards.cache = ShardCache(limit)
    if sets and limit < (least := _least(dataset, plan, in_flight)):
        raise InputError(
            f"data.cache_gb = {limit / 1e9:g} is too small: the current and the next windows of"
            f" {plan.window} shards in {plan.lanes} lanes, and two shards beside, need"
            f" {least / 1e9:.6g} at most",
            f"Set data.cache_gb to {_up(least):g} or more, or read with a smaller data.window.",
        )


def _least(dataset: Dataset, plan: SampleOrder, in_flight: int) -> int:
    """Bytes that suffice for any order of the shards: those of the largest ones."""
    train = _sizes(dataset.train)
    counts = np.sort(plan.counts[plan.counts > 0])
    smallest_window = max(1, int(counts[: plan.window].sum()))
    span = max(1, in_flight) * (plan.batch // plan.lanes)  # positions of a lane
    windows = 2 + max(0, span - 2) // smallest_window
    kept = min(len(train), plan.lanes * plan.window * windows)
    largest = np.concatenate([train[:1], _sizes(dataset.test)[:1]]).max()
    return int(train[:kept].sum() + FREE_SHARDS * largest)


def _sizes(shards: ShardSet | None) -> NDArray[np.int64]:
    """Bytes of the shards that are fetched, the largest first."""
    if shards is None or shards.cache is None:
        return np.empty(0, np.int64)
    return np.sort(shards.bytes)[::-1]


def _up(size: int) -> float:
    """In GB, rounded up to three digits after the point or, where it is small, to nine."""
    unit = 10**6 if size > 10**8 else 1
    return -(-size // unit) * unit / 1e9


class _Ahead:
    """The threads that fetch, and the shards that are pinned."""

    def __init__(self, shards: ShardSet) -> None:
        self._shards = shards
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
        room = self._shards.cache.limit if self._shards.cache is not None else 0
        free = FREE_SHARDS * int(sizes.max())
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
        cache = self._shards.cache
        try:
            return cache.hold(self._shards.shards[place].remote) if cache is not None else None
        except (ZooError, OSError):  # whoever needs the shard will try again, and say so
            return None
