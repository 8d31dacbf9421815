"""Shared memory for the pixels on their way from the workers, used again and again.

Memory that is new for each batch costs the kernel a cleared page for every 4 KiB of it, in the
worker and again in the main process, and a descriptor and a connection to send it. So the main
process makes room once for all batches under way, the workers get it when they start, and with
each batch that is asked for goes the number of a free slot. What comes back is that number. A slot
is free again when no tensor over it lives any more; where none is, a batch gets memory of its own.

What is free in /dev/shm is compared with what is needed before the workers start: a full one kills
a worker by SIGBUS in the middle of a run, and no message says why.
"""

from __future__ import annotations

import itertools
import math
import os
import resource
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from simsiam_zoo.data.batches import Damage, LoadedBatch, loaded
from simsiam_zoo.errors import InputError, ZooError

_SHARED_MEMORY = Path("/dev/shm")
_OWN_DESCRIPTORS = 192  # open shards, the log, what libraries hold
_DESCRIPTORS_EACH = 8  # of one worker: pipes, queues, its sentinel


def affordable_workers(workers: int, batch_bytes: int, prefetch: int, kept: int = 0) -> int:
    """As many of `workers` as fit into free shared memory; a line on stderr where it is fewer.

    Args:
        workers: how many are wanted.
        batch_bytes: pixels of one batch of one rank.
        prefetch: batches that each makes ahead.
        kept: batches beside, of all of them together.

    Raises:
        InputError: not one fits, or the process may not open as many files as they need.
    """
    if not workers:
        return 0
    each, beside = prefetch * batch_bytes, kept * batch_bytes
    free = _free_shared_memory()
    fitting = workers
    if free is not None and each:
        fitting = max(0, min(workers, (free - beside) // each))
    if not fitting:
        raise InputError(
            f"{_SHARED_MEMORY} has {_mib(free or 0)} free, one loader process needs"
            f" {_mib(each + beside)} ({prefetch + kept} batches)",
            "Give it more (docker run --shm-size), or use data.workers = 0 or a smaller batch.",
        )
    if fitting < workers:
        print(
            f"simsiam-zoo: {fitting} loader processes, not {workers}: {_SHARED_MEMORY} has"
            f" {_mib(free or 0)} free and they need {_mib(beside)} and each {_mib(each)}",
            file=sys.stderr,
        )
    _allow_descriptors(_OWN_DESCRIPTORS + fitting * (_DESCRIPTORS_EACH + prefetch + 1))
    return fitting


def _free_shared_memory() -> int | None:
    """Bytes; None where the system has no such folder and bounds nothing."""
    try:
        status = os.statvfs(_SHARED_MEMORY)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def _allow_descriptors(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise InputError(
            f"this process may open {hard} files; the loader processes need about {needed}",
            "Raise the limit (ulimit -n), or use fewer data.workers.",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _mib(count: int) -> str:
    return f"{count / (1 << 20):,.1f} MiB"


_NUMBERS = itertools.count()
_POOLS: weakref.WeakValueDictionary[str, Slots] = weakref.WeakValueDictionary()
"""Those that this process made, by name: what a worker sends names its pool."""


class Slots:
    """A pool of equal pieces of shared memory; it can be sent to workers.

    Args:
        count: slots.
        size: bytes of each.
    """

    def __init__(self, count: int, size: int) -> None:
        self.name = f"{os.getpid()}-{next(_NUMBERS)}"
        self._memory = _shared(count, size)
        self._free = list(range(count))  # the one that was used last is taken first: it is warm
        _POOLS[self.name] = self

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_free": []}  # only the main process hands slots out

    def take(self) -> int | None:
        """A free slot, which is not free any more; None where there is none."""
        try:
            return self._free.pop()
        except IndexError:
            return None

    def canvas(self, slot: int, shape: tuple[int, ...]) -> Tensor:
        """A slot's memory as uint8 `shape`."""
        return self._memory[slot, : math.prod(shape)].view(shape)

    def received(self, slot: int, shape: tuple[int, ...]) -> Tensor:
        """`canvas`, whose end, and that of all views of it, makes the slot free again."""
        # A tensor's storage keeps the array alive that it was made from, so it outlives all views.
        array = self.canvas(slot, shape).numpy()
        weakref.finalize(array, self._free.append, slot).atexit = False
        return torch.from_numpy(array)


class Batches(Protocol):
    """What makes the batches."""

    def shape(self, item: Any) -> tuple[int, ...]:
        """Of the canvas that `item` needs, uint8 [V, N, S, S, 3]."""

    def make(self, item: Any, canvas: Tensor) -> LoadedBatch:
        """The batch of `item`, its pixels in `canvas` from the front on. Raises ZooError."""


class Asked:
    """The sampler: each item of an order, and the slot for what is made of it."""

    def __init__(self, order: Any, slots: Slots | None) -> None:
        self._order, self._slots = order, slots

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[tuple[int | None, Any]]:
        for item in self._order:
            yield None if self._slots is None else self._slots.take(), item


class Made(Dataset["LoadedBatch | Sent | ZooError"]):
    """What is asked for → the batch; in a worker if there are any.

    An error is given as a value: raised in a worker, it comes wrapped in a traceback.
    """

    def __init__(self, batches: Batches, slots: Slots | None) -> None:
        self._batches, self._slots = batches, slots

    def __getitem__(self, asked: tuple[int | None, Any]) -> LoadedBatch | Sent | ZooError:
        slot, item = asked
        shape = self._batches.shape(item)
        try:
            if slot is not None and self._slots is not None:
                batch = self._batches.make(item, self._slots.canvas(slot, shape))
                return Sent(batch, slot, self._slots.name)
            here = get_worker_info() is None
            return self._batches.make(
                item, torch.empty(shape, dtype=torch.uint8) if here else _shared(*shape)
            )
        except ZooError as error:
            return error


class Sent:
    """A batch whose pixels lie in a slot: on the other side it is the `LoadedBatch` again."""

    def __init__(self, batch: LoadedBatch, slot: int, pool: str) -> None:
        self._batch, self._slot, self._pool = batch, slot, pool

    def __reduce__(self) -> tuple[object, ...]:
        batch = self._batch
        shape = tuple(batch.pixels.permute(0, 1, 3, 4, 2).shape)
        about = batch.ids.numpy(), batch.labels.numpy(), batch.epoch, batch.step, batch.damaged
        return _received, (self._pool, self._slot, shape, *about)


def _received(
    pool: str, slot: int, shape: tuple[int, ...], ids: Any, labels: Any, epoch: int, step: int,
    damaged: tuple[Damage, ...],
) -> LoadedBatch:  # fmt: skip
    canvas = _POOLS[pool].received(slot, shape)
    return loaded(canvas, ids, labels, epoch, step, damaged)


def _shared(*shape: int) -> Tensor:
    """Shared memory, uint8; torch sends it without a copy."""
    storage: Any = torch.UntypedStorage
    memory = storage._new_shared(math.prod(shape))
    return torch.empty(0, dtype=torch.uint8).set_(memory).view(shape)
