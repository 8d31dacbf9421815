"""Order + shards + augmentation → batches, and their way onto the device.

What is in a batch depends on (seed, epoch, step, rank) alone: the number of workers changes who
makes it, never what it is.
"""

from __future__ import annotations

import atexit
import functools
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from simsiam_zoo.data.batches import EvalBatches, LoadedBatch, TrainBatches, bytes_of
from simsiam_zoo.data.image import TOP
from simsiam_zoo.data.processes import forkserver, start_worker, starting
from simsiam_zoo.data.remote.ahead import follow_ids, follow_plan
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.data.slots import (
    BATCHES_HELD,
    PREFETCH,
    Made,
    Slots,
    affordable_workers,
    with_slots,
)
from simsiam_zoo.errors import DataError, ZooError

_DRAWING_WORKERS = 4  # drawing the views of a batch takes one of them as long as a step at most


@dataclass(eq=False)
class TrainLoader(TrainBatches):
    """The batches of one rank, from any (epoch, step) to the end of the run.

    Args:
        epochs: where the run ends.
        workers: processes beside this one; 0 makes each batch here, when it is asked for. Where
            images are `resident` a few do, which draw.
        pin_memory: give batches in page-locked memory (for CUDA).
    """

    epochs: int = 1
    workers: int = 0
    pin_memory: bool = False

    def batches(self, epoch: int = 0, step: int = 0) -> Iterator[LoadedBatch]:
        """Every batch from `step` of `epoch` on, through all later epochs: one pass of the workers.

        They start at this call, and end when the iterator is used up or let go. Raises InputError
        where shared memory is too small for one, DataError where a shard or every image of a lane's
        part of a batch is damaged or a worker died. `LoadedBatch.damaged` names what was replaced.
        """
        pixels = max(1, bytes_of(self.shapes(self.plan.share(self.world))))
        drawing = self.resident is not None
        wanted = min(self.workers, _DRAWING_WORKERS) if drawing else self.workers
        workers, start = affordable_workers(wanted, pixels), epoch * self.plan.steps + step
        todo = range(start, self.epochs * self.plan.steps)
        order = self._order(todo)
        if not drawing:
            order = follow_plan(
                order, self.shards, self.plan, start, self.epochs, self.rank, self.world,
                in_flight(workers),
            )  # fmt: skip
        return _run(self, order, len(todo), workers, pixels, self.pin_memory)

    def _order(self, todo: range) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        """(epoch, step, ids) of each step, which are counted over all epochs."""
        for epoch, step in (divmod(at, self.plan.steps) for at in todo):
            yield epoch, step, self.plan.ids(epoch, step, self.rank, self.world)

    def __iter__(self) -> Iterator[LoadedBatch]:
        return self.batches()


class EvalLoader:
    """Every sample once, in the order of ids, with its center view (`data.image.center`).

    Args:
        shards, image_size, workers, pin_memory: as for `TrainLoader`.
        batch: samples per batch; the last one may be smaller.
        crop: share of the resized short side that the view keeps; 0.875 is 224 of 256.
        ids: only these dense ids, in this order; None for all.
        skip_damaged: leave damaged images out (`LoadedBatch.damaged` names them), unless a whole
            batch of several is; by default one is a DataError: a figure on fewer images is another
            figure.
        rank, world: this rank takes every `world`-th batch from the `rank`-th on.
    """

    def __init__(
        self,
        shards: ShardSet,
        image_size: int,
        *,
        batch: int = 256,
        crop: float = 1.0,
        ids: NDArray[np.int64] | None = None,
        skip_damaged: bool = False,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        pin_memory: bool = False,
    ) -> None:
        self._batches = EvalBatches(shards, image_size, crop, skip_damaged)
        chosen = range(len(shards)) if ids is None else ids.tolist()
        starts = range(0, len(chosen), batch)[rank::world]
        self._order = [chosen[start : start + batch] for start in starts]
        self._workers, self._pin_memory = workers, pin_memory

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[LoadedBatch]:
        longest = max(map(len, self._order), default=0)
        pixels = bytes_of(self._batches.shapes(longest))
        workers = affordable_workers(self._workers, pixels)
        order = follow_ids(self._order, self._batches.shards)
        return _run(self._batches, order, len(self), workers, pixels, self._pin_memory)


def in_flight(workers: int) -> int:
    """Batches that may be asked for and not be done yet."""
    return max(1, workers * PREFETCH)


def normalize_pixels(
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """[N, C, H, W] → (images / 255 - mean) / std on `device`, channels last; of uint16 / 65535.

    Computed in float32 at least, whatever `dtype` the result has.
    """
    precision = torch.promote_types(dtype, torch.float32)
    most = TOP if images.dtype == torch.uint16 else 255
    if most == 255 and images.device.type == torch.device(device).type == "cpu":
        table = _table(tuple(mean), tuple(std), precision == torch.float64)
        pixels = images.permute(0, 2, 3, 1).flatten(0, 1).numpy()  # a view where channels are last
        looked_up = torch.from_numpy(cv2.LUT(pixels, table))
        return looked_up.view(len(images), -1, *pixels.shape[1:]).permute(0, 3, 1, 2).to(dtype)
    moved = images.to(device, non_blocking=True)
    moved = moved.to(dtype=precision, memory_format=torch.channels_last)
    shift, scale = _affine(tuple(mean), tuple(std), torch.device(device), precision, most)
    return torch.addcmul(shift, moved, scale).to(dtype)


@functools.lru_cache(maxsize=8)
def _table(mean: tuple[float, ...], std: tuple[float, ...], double: bool) -> NDArray[Any]:
    """What each level of each channel becomes, [1, 256, C]: a fifth of the time of computing it."""
    levels = np.arange(256, dtype=np.float64)[None, :, None] / 255
    return ((levels - mean) / std).astype(np.float64 if double else np.float32)


@functools.lru_cache(maxsize=8)
def _affine(
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device,
    dtype: torch.dtype,
    most: int,
) -> tuple[Tensor, Tensor]:
    """(-mean / std, 1 / (most std)), each [1, C, 1, 1]; copied to the device once."""
    with torch.inference_mode(False):  # else what is kept could never meet autograd
        means, stds = (torch.tensor(x, dtype=torch.float64).view(1, -1, 1, 1) for x in (mean, std))
        # dtype first: not every device has float64
        return (-means / stds).to(dtype).to(device), (1 / (most * stds)).to(dtype).to(device)


def _run(
    batches: TrainBatches | EvalBatches,
    order: Iterable[Any],
    count: int,
    workers: int,
    pixels: int,
    pin_memory: bool,
) -> Iterator[LoadedBatch]:
    """The `count` batches of `order`, each of at most `pixels` bytes; the workers start now."""
    slots, held = None, None
    options: dict[str, Any] = {}
    if workers and count:
        # Held by this process while it wants its workers. One that is only told to end finishes
        # what it does first: a download takes minutes, and workers ignore SIGTERM.
        end, held = multiprocessing.Pipe(duplex=False)
        atexit.register(held.close)  # later than multiprocessing did, so before it waits for them
        options = {
            "multiprocessing_context": forkserver(__name__),
            "prefetch_factor": PREFETCH,
            "worker_init_fn": functools.partial(start_worker, end),
        }
        slots = Slots(min(in_flight(workers) + BATCHES_HELD, count), pixels)
    else:
        cv2.setNumThreads(1)  # its threads cost more than they save on single images
    loader: DataLoader[Any] = DataLoader(
        Made(batches, slots),
        batch_size=None,
        sampler=with_slots(order, slots),
        generator=torch.Generator(),  # else starting it would draw from the run's own
        num_workers=workers if count else 0,
        pin_memory=pin_memory,
        **options,
    )
    with starting():
        made = iter(loader)
    return _checked(made, held)


def _checked(
    made: Iterator[LoadedBatch | ZooError], held: Connection | None
) -> Iterator[LoadedBatch]:
    """The batches; errors that came as values are raised. However it ends, the workers do too."""
    try:
        while (batch := next(made, None)) is not None:
            if isinstance(batch, ZooError):
                raise batch
            yield batch
    except (RuntimeError, EOFError, OSError) as error:
        if held is None or not _tells_of_death(error):
            raise
        raise DataError(
            f"a worker process of the loader died ({type(error).__name__}: {error})",
            "It may have run out of memory; use fewer workers, or workers = 0 to see more.",
        ) from error
    finally:
        if held is not None:
            held.close()
            atexit.unregister(held.close)
        del made  # a traceback that someone keeps would keep the workers too


def _tells_of_death(error: Exception) -> bool:
    """Whether torch says that a worker is gone, or a connection to it broke while it sent."""
    text = str(error)
    if text.startswith("Caught "):  # raised by code in a worker, passed on by torch
        return False
    return not isinstance(error, RuntimeError) or "exited unexpectedly" in text
