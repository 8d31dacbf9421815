"""How long a study will take on this machine: a few steps of each arm, timed."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from simsiam_zoo.errors import ZooError
from simsiam_zoo.model.siamese import Batch
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.studies.plan import StudyPlan
from simsiam_zoo.training.batches import micro_batches
from simsiam_zoo.training.loop import take_step
from simsiam_zoo.training.setup import Setup, prepare

AT_MOST = 64
"""Images of a timed step: a larger batch takes as much longer as it is larger, about."""

_STEPS = 2


def estimate(plan: StudyPlan) -> Iterator[tuple[str, float | ZooError]]:
    """Seconds of training of each arm that is run, with one seed; evaluation comes on top.

    Timed on noise, a process alone on the machine; several at once share its memory. Where an arm
    cannot be built, its error.
    """
    for arm in plan.arms:
        steps = plan.steps.get(arm.name)
        if steps is not None:
            try:
                seconds = seconds_per_step(arm.recipes[plan.study.seeds[0]])
            except ZooError as error:
                yield arm.name, error
            else:
                yield arm.name, steps[1] * seconds


def seconds_per_step(recipe: Recipe) -> float:
    """Seconds that a training step of the recipe takes here, without the loader."""
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            setup = prepare(recipe)
            batch = noise(setup, min(recipe.training.batch_size, AT_MOST))
            _step(setup, batch)  # the first one allocates, and lets oneDNN choose
            began = time.perf_counter()
            for _ in range(_STEPS):
                _step(setup, batch)
            seconds = (time.perf_counter() - began) / _STEPS
    finally:
        torch.set_num_threads(threads)
    return seconds * recipe.training.batch_size / len(batch.views[0])


def noise(setup: Setup, images: int) -> Batch:
    """A batch of normalised noise, as the loader would give one."""
    side, runtime = setup.recipe.data.image_size, setup.runtime
    views = [
        torch.randn(images, 3, side, side, dtype=runtime.dtype, device=runtime.device).contiguous(
            memory_format=torch.channels_last
        )
        for _ in range(setup.siamese.gradient.views)
    ]
    return Batch(views, torch.arange(images, device=runtime.device))


def _step(setup: Setup, batch: Batch) -> None:
    setup.siamese.train()
    policy = setup.siamese.gradient
    if policy.blocks:
        with torch.no_grad(), setup.runtime.autocast():
            policy.prepare_block(setup.siamese, iter(micro_batches(setup, batch)))
    take_step(setup, batch, 0, want_norm=False).loss.item()  # waits for the device
