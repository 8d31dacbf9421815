"""The networks of the paper at their full size, batches for them, and how fast a recipe is."""

from __future__ import annotations

import itertools
import time
from functools import partial
from pathlib import Path

import torch

from gpu_parts.part import Part
from shared.images import noise_shards
from shared.steps import bare_step, clock
from simsiam_zoo.model.siamese import Batch
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.training.batches import to_device, train_loader
from simsiam_zoo.training.setup import Setup, prepare


def paper_setup(
    part: Part,
    preset: str,
    size: int,
    batch: int,
    data: Path | None = None,
    *,
    whole: bool = False,
    **settings: object,
) -> Setup:
    """The preset's network at `size` px; by default on images of noise.

    A rehearsal has a tiny one, unless it is to be the `whole` network, which another is set beside.
    """
    if data is None:
        data = part.folder / f"noise-{batch}"
        if not data.exists():
            data.mkdir()
            noise_shards(data, 2 * batch)
    recipe = part.recipe(
        preset,
        tiny=part.rehearsal and not whole,
        dataset=str(data),
        data__image_size=size,
        training__batch_size=batch,
        **({"data__workers": "auto"} | settings),
    )
    setup = prepare(recipe)
    setup.schedule.apply(setup.optimizer, 0)
    return setup


def noise(device: torch.device, batch: int, size: int, small: tuple[int, ...] = ()) -> Batch:
    """Two views [batch, 3, size, size] on the device, and one of each small size; channels last."""
    sides = (size, size, *small)
    views = [torch.randn(batch, 3, side, side, device=device) for side in sides]
    return Batch([x.contiguous(memory_format=torch.channels_last) for x in views])


def speed_from_loader(part: Part, recipe: Recipe, workers: int) -> tuple[float, int]:
    """Images/s of a recipe that some workers feed, and the images of one epoch."""
    setup = prepare(recipe)
    device, batch = setup.runtime.device, recipe.training.batch_size
    batches = map(partial(to_device, setup), train_loader(setup, workers=workers).batches())
    setup.schedule.apply(setup.optimizer, 0)
    for loaded in itertools.islice(batches, part.cores):
        bare_step(setup, loaded)
    began, steps = clock(device), 0
    while time.perf_counter() - began < 3:
        bare_step(setup, next(batches))
        steps += 1
    return steps * batch / (clock(device) - began), setup.plan.steps * batch
