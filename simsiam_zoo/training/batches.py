"""The batches of a run: loaded, on the run's device, in blocks, in micro-batches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simsiam_zoo.data.batches import LoadedBatch
from simsiam_zoo.data.device_views import crop_views, finish_views
from simsiam_zoo.data.loader import TrainLoader, normalize_pixels
from simsiam_zoo.data.order import derive_key, evenly
from simsiam_zoo.data.processes import default_workers
from simsiam_zoo.model.siamese import Batch
from simsiam_zoo.runtime import distributed
from simsiam_zoo.training.setup import Setup

HELD_BYTES = 1 << 30
"""A block of up to this many bytes of views is kept in memory; a longer one is read twice."""


def train_loader(setup: Setup, workers: int | None = None) -> TrainLoader:
    """The batches until something changes or the run ends, from any step on.

    They are made by `workers` processes, or as many as the recipe says.
    """
    data, device = setup.recipe.data, setup.runtime.device.type
    if workers is None:
        workers = default_workers(device) if data.workers == "auto" else data.workers
    return TrainLoader(
        setup.dataset.train,
        setup.plan,
        setup.stage.recipe.part("augmentation").create(),
        image_size=data.image_size,
        views=setup.siamese.gradient.views,
        seed=setup.recipe.training.seed,
        epochs=setup.stage.end,
        workers=workers,
        rank=distributed.rank(),
        world=distributed.world_size(),
        pin_memory=device == "cuda",
        split=setup.views == "split",
        resident=None if setup.resident is None else setup.resident.index,
    )


def step_seed(setup: Setup, step: int) -> int:
    """What torch's generators start a step with on this rank (dropout draws from them)."""
    return derive_key(setup.recipe.training.seed, step, distributed.rank())


def to_device(setup: Setup, loaded: LoadedBatch) -> Batch:
    """A loaded batch as the model takes it: normalised, channels last, on the run's device."""
    data, device, dtype = setup.recipe.data, setup.runtime.device, setup.runtime.dtype
    views = _views_on_device(setup, loaded)
    return Batch(
        views=[normalize_pixels(view, data.mean, data.std, device, dtype) for view in views],
        ids=None if data.stream else loaded.ids.to(device, non_blocking=True),
    )


def _views_on_device(setup: Setup, loaded: LoadedBatch) -> list[Tensor]:
    """The views, uint8 [N, 3, S, S] each, after what is left to the device."""
    if loaded.drawn is None:
        return loaded.views
    resident, views, done = setup.resident, list[Tensor](), 0
    images = None if resident is None else resident.images(loaded.ids.numpy())
    for part in loaded.pixels:  # of one size each
        count, size = len(part), part.shape[-1]
        drawn, done = loaded.drawn[done : done + count], done + count
        if images is None:
            crops = part.flatten(0, 1).to(setup.runtime.device, non_blocking=True)
        else:
            crops = torch.cat([crop_views(*images, table, size) for table in drawn])
        # All at once: each operation is a few launches, however many views it is for.
        finished = finish_views(crops, drawn.reshape(-1, drawn.shape[2]))
        views += [view.expand(-1, 3, -1, -1) for view in finished.chunk(count)]
    return views


def monitor_ids(setup: Setup) -> NDArray[np.int64]:
    """The training images whose effective rank is taken, [n] int64."""
    return evenly(len(setup.dataset.train), setup.recipe.evaluation.rank_samples)


def micro_batches(setup: Setup, batch: Batch) -> list[Batch]:
    """This rank's share of a step's batch in `training.accumulate` equal pieces, in its order."""
    count = setup.recipe.training.accumulate
    if count == 1:
        return [batch]
    views = zip(*(view.chunk(count) for view in batch.views), strict=True)
    ids = [None] * count if batch.ids is None else batch.ids.chunk(count)
    return [Batch(list(of_views), its_ids) for of_views, its_ids in zip(views, ids, strict=True)]


def block_steps(setup: Setup) -> int:
    """Steps in a block of the gradient policy's (arXiv:2011.10566 section 5.2); 1: it has none."""
    return max(1, setup.siamese.gradient.blocks)


def in_blocks(setup: Setup, batches: Iterator[LoadedBatch], step: int) -> Iterator[LoadedBatch]:
    """The batches from `step`, the start of a block, on; the policy is shown each block first."""
    if not setup.siamese.gradient.blocks:
        yield from batches
        return
    while step < setup.end:
        length = min(block_steps(setup), setup.end - step)
        first = next(batches, None)
        if first is None:
            return
        if first.nbytes * length <= HELD_BYTES:
            held = [first, *islice(batches, length - 1)]
            _prepare_block(setup, step, iter(held))
            yield from held
        else:
            again = train_loader(setup).batches(*divmod(step, setup.plan.steps))
            _prepare_block(setup, step, islice(again, length))
            yield first
            yield from islice(batches, length - 1)
        step += length


def _prepare_block(setup: Setup, step: int, block: Iterator[LoadedBatch]) -> None:
    """Show the policy the block that starts at `step`, as the steps will give it."""
    # As the step is: a block of one has the targets that the step itself would have.
    torch.manual_seed(step_seed(setup, step))
    shown = (piece for loaded in block for piece in micro_batches(setup, to_device(setup, loaded)))
    with torch.no_grad(), setup.runtime.autocast():
        setup.siamese.gradient.prepare_block(setup.siamese, shown)
