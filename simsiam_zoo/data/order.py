"""Which samples make which step: a pure function of (counts, seed, epoch, window, lanes, batch).

The samples of an epoch lie in one line, shard after shard, the shards in an order drawn by a keyed
hash. The line is cut into L lanes of n = N // L positions; within a lane every K shards form a
window, whose samples are permuted by the hash. Step k takes positions [k b, (k + 1) b) of each
lane, b = G / L, and rank r the r-th equal slice of that global batch. Steps are N // G, so only
the tail of each lane is dropped. It follows that

- each sample comes at most once an epoch, and exactly steps x G of them come;
- every rank takes equally many steps, whatever the sizes of the shards;
- the global order does not depend on the number of ranks or workers;
- any step is found by a binary search and one window per lane, in memory bounded by the window.

Permutations come from sorting by a keyed hash of integers, not from a library's generator, so that
an order recorded today is the order of any later version of numpy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.errors import InputError

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_M1 = 0xBF58476D1CE4E5B9
_M2 = 0x94D049BB133111EB


def derive_key(*words: int) -> int:
    """One 64-bit key from any number of integers, taken modulo 2^64; their order matters."""
    key = len(words)
    for word in words:
        key = _mix_int((key + _GOLDEN) & _MASK) ^ (word & _MASK)
    return _mix_int((key + _GOLDEN) & _MASK)


def keyed_hash(values: NDArray[np.int64], key: int) -> NDArray[np.uint64]:
    """A 64-bit hash of each value: a bijection for a fixed key, so distinct values never tie.

    Two rounds of splitmix64's finalizer with the key between them (Steele, Lea and Flood 2014,
    doi:10.1145/2660193.2660195; constants of Vigna's splitmix64.c).
    """
    mixed = _mix(values.astype(np.uint64) + np.uint64(key))
    mixed ^= np.uint64(_mix_int(key ^ _GOLDEN))
    return _mix(mixed)


def keyed_order(values: NDArray[np.int64], key: int) -> NDArray[np.intp]:
    """The indices that sort distinct `values` by their keyed hash: a permutation of them."""
    return np.argsort(keyed_hash(values, key))


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x ^= x >> np.uint64(30)
    x *= np.uint64(_M1)
    x ^= x >> np.uint64(27)
    x *= np.uint64(_M2)
    x ^= x >> np.uint64(31)
    return x


def _mix_int(x: int) -> int:
    x = ((x ^ (x >> 30)) * _M1) & _MASK
    x = ((x ^ (x >> 27)) * _M2) & _MASK
    return x ^ (x >> 31)


def evenly(total: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the ids 0 to total - 1, evenly spaced."""
    return np.linspace(0, total - 1, min(total, most)).round().astype(np.int64)


MAX_SAMPLES = 1 << 48
"""More than any data set has, and far from where 64-bit positions would wrap."""

_SHARDS, _SAMPLES = 1, 2  # what a key is drawn for


class _Epoch(NamedTuple):
    epoch: int
    order: NDArray[np.intp]  # [shards] shard at each place of the line
    ends: NDArray[np.int64]  # [shards + 1] first position of each place; the last is N


class _Window(NamedTuple):
    epoch: int
    begin: int  # positions of the line
    end: int
    ids: NDArray[np.int64]  # [end - begin]


class SampleOrder:
    """The order of samples in every epoch of a run: `samples` N, in `steps` N // G an epoch.

    Args:
        counts: samples of each shard, in the order of the shard set; zeros are fine.
        seed: of the run.
        batch: global batch size G, over all ranks.
        lanes: L, how many places of the line each step draws from.
        window: K, how many shards are permuted together; all of a lane's are a full shuffle.

    Raises:
        InputError: G is no multiple of L, or there are fewer samples than G.
    """

    def __init__(
        self, counts: Iterable[int], seed: int, batch: int, lanes: int = 1, window: int = 16
    ) -> None:
        self.counts = np.fromiter(counts, np.int64)
        if self.counts.sum(dtype=np.float64) > MAX_SAMPLES:
            raise InputError(f"the shards claim more than {MAX_SAMPLES:,} samples")
        self.seed, self.batch, self.lanes, self.window = seed, batch, lanes, window
        self.samples = int(self.counts.sum())
        if min(batch, lanes, window) < 1 or (self.counts < 0).any():
            raise InputError("batch size, lanes, window and shard counts cannot be negative or 0")
        if batch % lanes:
            raise InputError(f"a global batch of {batch} cannot be shared by {lanes} lanes equally")
        if self.samples < batch:
            samples = f"{self.samples} sample{'s' * (self.samples != 1)}"
            raise InputError(
                f"the data has {samples}: fewer than one global batch of {batch}",
                f"Choose a batch size of at most {self.samples}."
                if self.samples > 1
                else "Batch normalisation, and a loss that compares images, need two at least.",
            )
        self.steps = self.samples // batch
        self._starts = np.concatenate(([0], np.cumsum(self.counts)))  # dense id of each shard's 0
        self._epoch: _Epoch | None = None
        self._windows: dict[int, _Window] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_epoch": None, "_windows": {}}  # a worker makes its own

    def share(self, world: int) -> int:
        """Samples per rank and step. Raises InputError where `world` ranks cannot share alike."""
        if world < 1 or self.batch % world:
            raise InputError(
                f"a global batch of {self.batch} cannot be shared by {world} ranks equally",
                f"Choose a batch size that is a multiple of {world}.",
            )
        return self.batch // world

    def ids(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
        """Dense ids [G / world] of one rank's samples at one step of one epoch.

        A dense id is the shard's first id (`counts` summed in the given order) + the index in it.
        Raises InputError where there is no such step or rank, or G is no multiple of `world`.
        """
        share = self.share(world)
        if not (0 <= step < self.steps and 0 <= rank < world and epoch >= 0):
            raise InputError(
                f"the plan has no step {step} of epoch {epoch} for rank {rank} of {world}"
                f" ({self.steps} steps per epoch)"
            )
        per_lane = self.batch // self.lanes
        parts: list[NDArray[np.int64]] = []
        at, stop = rank * share, (rank + 1) * share  # places in the global batch, lane by lane
        while at < stop:
            lane, offset = divmod(at, per_lane)
            taken = min(stop - at, per_lane - offset)
            begin = step * per_lane + offset
            parts.extend(self._take(epoch, lane, begin, begin + taken))
            at += taken
        return np.concatenate(parts)

    def shards(
        self, first: int, last: int, epochs: int, rank: int = 0, world: int = 1
    ) -> list[int]:
        """The shards that a rank needs from one step to another and soon after, the first first.

        They are those of the windows that the steps draw from, and where that is one window of a
        lane, of the next one too. Steps `first` to `last`, both included, are counted over all
        epochs; there are `epochs` of them.
        """
        share, per_lane = self.share(world), self.batch // self.lanes
        needed: list[list[int]] = []
        for lane in range(rank * share // per_lane, ((rank + 1) * share - 1) // per_lane + 1):
            for number, places in enumerate(self._windows_of(lane, first, last, epochs)):
                needed += [[]] * (number >= len(needed))
                needed[number] = needed[number] + places
        return list(dict.fromkeys(shard for window in needed for shard in window))

    def _windows_of(self, lane: int, first: int, last: int, epochs: int) -> Iterable[list[int]]:
        length, per_lane = self.samples // self.lanes, self.batch // self.lanes
        (epoch, step), (last_epoch, last_step) = divmod(first, self.steps), divmod(last, self.steps)
        begin, stop = lane * length, lane * length + self.steps * per_lane
        position, number = begin + step * per_lane, 0
        end = last_epoch, begin + (last_step + 1) * per_lane
        while epoch < epochs and ((epoch, position) < end or number < 2):
            low, high, first_of, position = self._window_places(epoch, lane, position)
            line = self._line(epoch)
            starts = np.maximum(line.ends[low:high], first_of)
            used = np.minimum(line.ends[low + 1 : high + 1], position) > starts
            yield line.order[low:high][used].tolist()
            number += 1
            if position >= stop:
                epoch, position = epoch + 1, begin

    def _take(self, epoch: int, lane: int, begin: int, end: int) -> Iterable[NDArray[np.int64]]:
        """The ids at positions [begin, end) of a lane, across the borders of its windows."""
        first = lane * (self.samples // self.lanes)
        at, stop = first + begin, first + end
        while at < stop:
            window = self._window_at(epoch, lane, at)
            until = min(stop, window.end)
            yield window.ids[at - window.begin : until - window.begin]
            at = until

    def _window_at(self, epoch: int, lane: int, position: int) -> _Window:
        kept = self._windows.get(lane)
        if kept is None or kept.epoch != epoch or not kept.begin <= position < kept.end:
            kept = self._make_window(epoch, lane, position)
            self._windows[lane] = kept
        return kept

    def _make_window(self, epoch: int, lane: int, position: int) -> _Window:
        low, high, begin, end = self._window_places(epoch, lane, position)
        line = self._line(epoch)

        # Where each shard starts and stops in this window; those of the lanes beside are cut off.
        starts = np.clip(line.ends[low:high], begin, end)
        sizes = np.clip(line.ends[low + 1 : high + 1], begin, end) - starts
        id_of_start = self._starts[line.order[low:high]] + starts - line.ends[low:high]
        ids: NDArray[np.int64] = np.arange(begin, end) + np.repeat(id_of_start - starts, sizes)
        return _Window(epoch, begin, end, ids[keyed_order(ids, self._key(_SAMPLES, epoch))])

    def _window_places(self, epoch: int, lane: int, position: int) -> tuple[int, int, int, int]:
        """The window around a position of a lane: its places of the line, and its positions."""
        line = self._line(epoch)
        length = self.samples // self.lanes
        begin, end = lane * length, (lane + 1) * length
        # The last place that starts at or before a position holds it: empty shards are passed over.
        first, place = np.searchsorted(line.ends, [begin, position], side="right") - 1
        low = int(place - (place - first) % self.window)
        high = min(low + self.window, len(line.order))
        return low, high, max(begin, int(line.ends[low])), min(end, int(line.ends[high]))

    def _line(self, epoch: int) -> _Epoch:
        if self._epoch is None or self._epoch.epoch != epoch:
            shards = np.arange(len(self.counts))
            order = keyed_order(shards, self._key(_SHARDS, epoch))
            self._epoch = _Epoch(epoch, order, np.concatenate(([0], np.cumsum(self.counts[order]))))
        return self._epoch

    def _key(self, purpose: int, epoch: int) -> int:
        return derive_key(self.seed, purpose, epoch)
