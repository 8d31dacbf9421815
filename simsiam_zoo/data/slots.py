"""Shared memory for the pixels on their way from the workers, used again and again.

Memory that is new for each batch costs the kernel a cleared page for every 4 KiB of it, in both
processes, and a descriptor and a connection to send it. So the main process makes room once for all
batches under way. With each batch that is asked for goes the number of a free slot, which comes
back; it is free again when no tensor over it lives any more. Where none is free, a batch gets
memory of its own. Too little of /dev/shm would kill a worker by SIGBUS, and no message says why: it
is looked at before the workers start.
"""

from __future__ import annotations

import itertools
import os
import sys
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from simsiam_zoo.data.batches import EvalBatches, LoadedBatch, Shape, TrainBatches, bytes_of
from simsiam_zoo.errors import InputError, ZooError

PREFETCH = 4
"""Batches that each worker makes ahead."""

BATCHES_HELD = 2
"""Batches that have room beside those made ahead: the one that the caller has still, and the one
that it gets now."""

_SHARED_MEMORY = Path("/dev/shm")


def affordable_workers(workers: int, batch_bytes: int) -> int:
    """As many of `workers` as fit into free shared memory; a line on stderr where it is fewer.

    `batch_bytes` are the pixels of one batch of one rank. Raises InputError where not one fits.
    """
    free = _free_shared_memory()
    each, beside = PREFETCH * batch_bytes, BATCHES_HELD * batch_bytes
    if free is None or not workers or not each:
        return workers
    fitting = max(0, min(workers, (free - beside) // each))
    there = f"{_SHARED_MEMORY} has {_mib(free)} free"
    if not fitting:
        raise InputError(
            f"{there}, one loader process needs {_mib(each + beside)}"
            f" ({PREFETCH + BATCHES_HELD} batches)",
            "Give it more (docker run --shm-size), or use data.workers = 0 or a smaller batch.",
        )
    if fitting < workers:
        print(
            f"simsiam-zoo: {fitting} loader processes, not {workers}: {there} and they need"
            f" {_mib(beside)} and each {_mib(each)}",
            file=sys.stderr,
        )
    return fitting


def _free_shared_memory() -> int | None:
    """Bytes; None where the system has no such folder and bounds nothing."""
    try:
        status = os.statvfs(_SHARED_MEMORY)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def _mib(count: int) -> str:
    return f"{count / (1 << 20):,.1f} MiB"


_NUMBERS = itertools.count()
_POOLS: weakref.WeakValueDictionary[str, Slots] = weakref.WeakValueDictionary()
"""Those that this process made, by name: what a worker sends names its pool."""


class Slots:
    """A pool of `count` pieces of shared memory of `size` bytes; it can be sent to workers."""

    def __init__(self, count: int, size: int) -> None:
        self.name = f"{os.getpid()}-{next(_NUMBERS)}"
        storage: Any = torch.UntypedStorage
        memory = torch.empty(0, dtype=torch.uint8).set_(storage._new_shared(count * size))
        self._memory = memory.view(count, size)
        self._free = list(range(count))  # the one that was used last is taken first: it is warm
        _POOLS[self.name] = self

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_free": []}  # only the main process hands slots out

    def take(self) -> int | None:
        """A free slot, which is not free any more; None where there is none."""
        return self._free.pop() if self._free else None

    def memory(self, slot: int) -> Tensor:
        """A slot's memory, uint8 [size]."""
        return self._memory[slot]

    def received(self, slot: int) -> Tensor:
        """`memory`; the end of what is given, and of all views of it, frees the slot."""
        # A tensor's storage keeps the array alive that it was made from, so it outlives all views.
        array = self._memory[slot].numpy()
        weakref.finalize(array, self._free.append, slot).atexit = False
        return torch.from_numpy(array)


def with_slots(order: Iterable[Any], slots: Slots | None) -> Iterator[tuple[int | None, Any]]:
    """Each item of an order, and the slot for what is made of it."""
    for item in order:
        yield None if slots is None else slots.take(), item


class Made(Dataset["LoadedBatch | Sent | ZooError"]):
    """What `with_slots` asks for → the batch; in a worker if there are slots.

    An error is given as a value: raised in a worker, it comes wrapped in a traceback.
    """

    def __init__(self, batches: TrainBatches | EvalBatches, slots: Slots | None) -> None:
        self._batches, self._slots = batches, slots

    def __getitem__(self, asked: tuple[int | None, Any]) -> LoadedBatch | Sent | ZooError:
        (slot, item), slots = asked, self._slots

        def room(size: int) -> Tensor:
            if slots is None or slot is None:
                return torch.empty(size, dtype=torch.uint8)
            return slots.memory(slot)[:size]

        try:
            batch = self._batches.make(item, room)
        except ZooError as error:
            return error
        return batch if slots is None else Sent(batch, slots.name, slot)


class Sent:
    """A batch on its way from a worker: on the other side it is the `LoadedBatch` again.

    Its pixels lie in a slot of a pool; where none was free they go with it.
    """

    def __init__(self, batch: LoadedBatch, pool: str, slot: int | None) -> None:
        self._batch, self._pool, self._slot = batch, pool, slot

    def __reduce__(self) -> tuple[object, ...]:
        # Arrays throughout: each tensor would cost a descriptor and a connection.
        batch, slot = self._batch, self._slot
        where: object = batch.memory.numpy() if slot is None else (self._pool, slot)
        about = batch.epoch, batch.step, batch.damaged, batch.drawn
        return _received, (where, batch.shapes, batch.ids.numpy(), batch.labels.numpy(), *about)


def _received(
    where: tuple[str, int] | NDArray[np.uint8],
    shapes: Sequence[Shape],
    ids: NDArray[np.int64],
    labels: NDArray[np.int64],
    *about: Any,
) -> LoadedBatch:
    if isinstance(where, tuple):
        pool, slot = where
        memory = _POOLS[pool].received(slot)[: bytes_of(shapes)]
    else:
        memory = torch.from_numpy(where)
    return LoadedBatch(memory, shapes, torch.from_numpy(ids), torch.from_numpy(labels), *about)
