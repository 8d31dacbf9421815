"""What a study will take on this machine: its plan, with a few steps of each arm timed."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from simsiam_zoo.errors import ZooError
from simsiam_zoo.model.siamese import Batch
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.device import memory_trouble
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.studies.arms import StudyArm
from simsiam_zoo.studies.job import is_complete
from simsiam_zoo.studies.plan import StudyPlan, missing_data
from simsiam_zoo.studies.selection import EVERY_ARM, Selection
from simsiam_zoo.training.batches import micro_batches
from simsiam_zoo.training.loop import take_step
from simsiam_zoo.training.setup import Setup, prepare

AT_MOST = 64
"""Images of a step timed on a CPU: a larger batch takes as much longer as it is larger, about."""

_STEPS = 2


def describe_plan(
    plan: StudyPlan,
    folder: Path,
    jobs: int,
    selection: Selection = EVERY_ARM,
    progress: Progress | None = None,
    gpus: float = 0.0,
) -> dict[str, Any]:
    """The plan, what is done of its selected runs and an estimate of the rest, as plain values.

    Seconds are of training, where `jobs` run at once, each on so many `gpus`; evaluation comes on
    top. They are timed on noise, a process alone on the machine; several at once share its memory.
    An arm that cannot be built is not run.
    """
    owner = {each.name: arm for arm in plan.arms for each in (arm, *arm.candidates)}
    tuning = list(plan.tuning_jobs(folder, selection.arms(plan)))
    selected = [*tuning, *selection.jobs(plan, folder, planned=True)]
    left = [
        job
        for job in selected
        if owner[job.arm.name].name in selection.again or not is_complete(job.folder, job.metrics)
    ]
    chosen = selection.arms(plan) if left else ()
    timed = [arm for arm in plan.arms if arm.steps is not None and arm.name in chosen]
    seconds: dict[str, float] = {}
    for arm in (progress or Progress()).follow(timed, len(timed), "arms, a few steps of each"):
        try:
            each = seconds_per_step(arm.recipe)
        except ZooError as error:
            arm.not_run = error.what
            continue
        for one in (arm, *arm.candidates):
            if one.steps is not None:
                share = 1.0 if one is arm else _share(plan, arm)
                seconds[one.name] = each * one.steps[1] * share
    selected = [job for job in selected if not owner[job.arm.name].not_run]
    left = [job for job in left if not owner[job.arm.name].not_run]
    known = all(job.arm.name in seconds for job in left)
    there = torch.cuda.device_count() if plan.arms[0].recipe.training.device != "cpu" else 0
    alone = min(jobs, jobs_alone(gpus, there) or jobs)
    described = plan.model_dump(mode="json")
    return {
        **described,
        "arms": [{**arm, "seconds": seconds.get(arm["name"])} for arm in described["arms"]],
        "folder": str(folder),
        "runs": len(selected),
        "runs_to_choose": sum(job in tuning for job in selected),
        "runs_left": len(left),
        "missing_data": missing_data(plan),
        "jobs": jobs,
        "gpus": gpus,
        "gpus_here": there,
        "seconds": span((seconds[job.arm.name] for job in left), alone) if known else None,
    }


def jobs_alone(gpus: float, there: int) -> int | None:
    """How many at once go as fast as one alone: runs that share a GPU are together as fast as one.

    None: as many as one likes, for each has GPUs of its own, or there is none.
    """
    if not there or gpus >= 1:
        return None
    return there if gpus else 1  # without GPUs of their own, all take the first


def _share(plan: StudyPlan, arm: StudyArm) -> float:
    """What halving leaves of the candidates' steps, spread over all of them."""
    assert plan.tune is not None
    return plan.tune.share(len(arm.candidates), arm.candidates[0].recipe.training.epochs)


def span(seconds: Iterable[float], jobs: int) -> float:
    """Seconds until all have ended, of which `jobs` run at once and start in this order."""
    ends = [0.0] * jobs
    for each in seconds:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)


@memory_trouble("a step of the batch", "Use a smaller batch, or training.accumulate.")
def seconds_per_step(recipe: Recipe) -> float:
    """Seconds that a training step of the recipe takes here, without the loader.

    InputError: the network cannot be built, or the device has no memory for the batch.
    """
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            setup = prepare(recipe)
            device, dtype = setup.runtime.device, setup.runtime.dtype
            images = recipe.training.batch_size
            if device.type == "cpu":  # a GPU is not filled by a small batch
                images = min(images, AT_MOST)
            channels = recipe.data.channels
            noise = (
                torch.randn(images, channels, side, side, dtype=dtype, device=device)
                for side in setup.view_sizes
            )
            views = [view.contiguous(memory_format=torch.channels_last) for view in noise]
            batch = Batch(views, torch.arange(images, device=device))
            _step(setup, batch)  # the first one allocates, and lets oneDNN choose
            began = time.perf_counter()
            for _ in range(_STEPS):
                _step(setup, batch)
            seconds = (time.perf_counter() - began) / _STEPS
    finally:
        torch.set_num_threads(threads)
    return seconds * recipe.training.batch_size / images


def _step(setup: Setup, batch: Batch) -> None:
    setup.siamese.train()
    policy = setup.siamese.gradient
    if policy.blocks:
        with torch.no_grad(), setup.runtime.autocast():
            policy.prepare_block(setup.siamese, iter(micro_batches(setup, batch)))
    take_step(setup, batch, 0, want_norm=False)[0].item()  # waits for the device
