"""Speed of training: our step against a plain one, a run against its step, the whole pipeline.

    python benchmarks/step.py [PART] [--seconds S] [--blocks N] [--threads T]

PART is one of these; by default all.

step      ours (the recipe's precision, channels last, fused optimiser) against the paper's
          algorithm written plainly: torchvision's network, fp32, contiguous, torch's default SGD.
          Same parameters, batch, threads and machine; both on resident, normalised batches.
          Goal: 2 x where the CPU multiplies bf16.
products  the step of `mnist-5k-resnet10t` with its one-output convolutions as matrix products,
          against the same step with torch's convolutions.
trainer   a run of `mnist-5k` on resident data against its bare step: what the loop, the meter and
          the log cost. Looks of the monitor and checkpoints are left out. Goal: 0.95 of its speed.
pipeline  the same run from shards, the loader's processes included, as a share of the bare step's
          samples/s on resident data. Goal: 0.90.
busy      the bare step of `mnist-5k`, idle and beside one and two busy processes: with OpenMP as it
          comes, as this program sets it, and with one thread. Goals: idle 0.95 of the best of the
          three; beside one busy process on two cores 0.55 of idle.

Two sides take turns, a block of about S (2) seconds each, N (7) blocks of T threads (all cores);
medians are printed, and the ratio is the median of the ratios of neighbouring blocks.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn

from shared.busy import median_ratio, speeds_beside
from shared.images import noise_shards
from shared.plain import count, plain_network, plain_step
from shared.rows import row
from shared.steps import Block, bare_step, clock, ratio, speed, steps_in, take_turns, timed
from simsiam_zoo.data.batches import LoadedBatch
from simsiam_zoo.data.loader import TrainLoader
from simsiam_zoo.model.siamese import Batch
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.convolutions import OneOutputConv2d
from simsiam_zoo.runtime.device import open_runtime
from simsiam_zoo.runtime.machine import WAITING, available_cores
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.batches import to_device, train_loader
from simsiam_zoo.training.setup import Setup, prepare
from simsiam_zoo.training.train import train

SETTINGS = (  # name, preset, image size, batch
    ("ResNet-18 at 32 px", "cifar10", 32, 64),
    ("ResNet-50 at 64 px", "imagenet", 64, 16),
    ("ResNet-50 at 224 px", "imagenet", 224, 8),
)
SETTLE = 1.0
"""Seconds in which the loader's processes fill their queues and fall asleep before a bare block."""


def report(name: str, ours: list[Block], theirs: list[Block], against: str, goal: str) -> None:
    found = f"{speed(ours):.1f} samples/s"
    row(name, found, f"{against} {speed(theirs):.1f} samples/s", ratio(ours, theirs), goal)


def compare_steps(seconds: float, blocks: int, threads: int) -> None:
    for name, preset, size, batch in SETTINGS:
        with tempfile.TemporaryDirectory() as folder:
            noise_shards(Path(folder), 2 * batch)
            settings = {"training.batch_size": batch, "data.image_size": size}
            operation = {"dataset": folder, "training.threads": threads}
            setup = prepare(Recipe.make(preset, settings=settings | operation))
        device = setup.runtime.device
        theirs = plain_network(preset).to(device).train()
        assert count(theirs) == count(setup.siamese)
        setup.schedule.apply(setup.optimizer, 0)
        x1, x2 = torch.randn(2, batch, 3, size, size, device=device).unbind()
        ready = Batch([x.contiguous(memory_format=torch.channels_last) for x in (x1, x2)])
        sides = [partial(bare_step, setup, ready), plain_step(theirs, x1, x2)]
        taken = take_turns(device, sides, seconds, blocks, batch)
        what = f"{name}, batch {batch}, {setup.runtime.precision}: step"
        report(what, *taken, "plain fp32", ">= 2 with bf16")


def compare_products(seconds: float, blocks: int, threads: int) -> None:
    setup = prepare(mnist(threads, "mnist-5k-resnet10t"))
    setup.schedule.apply(setup.optimizer, 0)
    ready = to_device(setup, next(loader_of(setup)))
    swapped = [m for m in setup.siamese.modules() if type(m) is OneOutputConv2d]

    def step_with(kind: type[nn.Conv2d]) -> None:
        for module in swapped:
            module.__class__ = kind
        bare_step(setup, ready)

    batch = setup.recipe.training.batch_size
    sides = [partial(step_with, kind) for kind in (OneOutputConv2d, nn.Conv2d)]
    taken = take_turns(setup.runtime.device, sides, seconds, blocks, batch)
    what = f"mnist-5k-resnet10t, {setup.runtime.precision}: one-output convolutions as products"
    report(what, *taken, "as convolutions", "")


class _Done(Exception):
    """Enough blocks were timed; the run is let go."""


class TakingTurns:
    """Feeds a run, and makes bare steps beside it: a block of the run's, a block of bare ones.

    It stands in for `TrainLoader.batches`, so it sees when the run asks for each batch.

    Args:
        setup: its bare steps are made; of the run's recipe.
        resident: feed the run these batches; None for those of its own loader.
    """

    def __init__(
        self, setup: Setup, resident: list[LoadedBatch] | None, seconds: float, blocks: int
    ) -> None:
        self.device, self.resident, self.blocks = setup.runtime.device, resident, blocks
        self.batch = setup.recipe.training.batch_size
        setup.schedule.apply(setup.optimizer, 0)
        made = resident or list(itertools.islice(loader_of(setup), 2))
        ready = itertools.cycle([to_device(setup, each) for each in made])
        self.bare = lambda: bare_step(setup, next(ready))
        # Whole rows of the log, so that each block has its share of them.
        rows = max(1, round(steps_in(self.device, self.bare, seconds) / 10))
        self.steps = rows * setup.recipe.logging.interval_steps
        self.run: list[Block] = []
        self.bare_blocks: list[Block] = []
        self.waits: list[float] = []

    def feed(self, source: Iterator[LoadedBatch]) -> Iterator[LoadedBatch]:
        """Batches for the run until all blocks are timed. Raises _Done."""
        for _ in range(self.blocks):
            # What the loader made ahead during the bare steps is no part of a block.
            yield from itertools.islice(source, self.steps if self.resident is None else 10)
            began, waited = clock(self.device), 0.0
            for _ in range(self.steps):
                asked = time.perf_counter()
                batch = next(source)
                waited += time.perf_counter() - asked
                yield batch
            self.run.append((clock(self.device) - began, self.steps * self.batch))
            self.waits.append(waited / self.run[-1][0])
            if self.resident is None:
                time.sleep(SETTLE)
            self.bare_blocks.append(timed(self.device, self.bare, self.steps, self.batch))
        raise _Done

    def watch(self, recipe: Recipe) -> None:
        """Train until all blocks are timed."""
        own = TrainLoader.batches

        def batches(loader: TrainLoader, *where: int) -> Iterator[LoadedBatch]:
            return self.feed(
                itertools.cycle(self.resident) if self.resident else own(loader, *where)
            )

        with tempfile.TemporaryDirectory() as folder, patch.object(TrainLoader, "batches", batches):
            try:
                train(recipe, Path(folder) / "run", progress=Progress())
            except _Done:
                return
        raise AssertionError("the run ended before its blocks did")


def loader_of(setup: Setup) -> Iterator[LoadedBatch]:
    return train_loader(setup, workers=0).batches()


def mnist(threads: int, preset: str = "mnist-5k") -> Recipe:
    """The preset, long enough for any number of blocks, without looks and checkpoints."""
    settings = {
        "training.epochs": 10_000,
        "training.threads": threads,
        "training.checkpoint_minutes": 1e6,
        "evaluation.online_epochs": 0,
    }
    return Recipe.make(preset, settings=settings)


def compare_trainer(seconds: float, blocks: int, threads: int) -> None:
    recipe = mnist(threads)
    setup = prepare(recipe)
    turns = TakingTurns(setup, list(itertools.islice(loader_of(setup), 8)), seconds, blocks)
    turns.watch(recipe)
    report("mnist-5k, resident data: a run", turns.run, turns.bare_blocks, "its step", ">= 0.95")


def compare_pipeline(seconds: float, blocks: int, threads: int) -> None:
    recipe = mnist(threads)
    turns = TakingTurns(prepare(recipe), None, seconds, blocks)
    turns.watch(recipe)
    wait = 100 * statistics.median(turns.waits)
    what = f"mnist-5k, shards, {wait:.1f} % waiting: a run"
    report(what, turns.run, turns.bare_blocks, "its step, resident", ">= 0.90")


def compare_busy(seconds: float, blocks: int, threads: int) -> None:
    cores = threads or available_cores()
    ways = {"default": (cores, {}), "ours": (threads, WAITING), "one thread": (1, {})}
    found = speeds_beside(ways, (0, 1, 2), "mnist-5k", seconds, blocks)
    idle = {way: statistics.median(speeds) for way, speeds in found[0].items()}
    for others, speeds in found.items():
        medians = {way: statistics.median(of) for way, of in speeds.items()}
        ours = f"{medians['ours']:.1f} samples/s"
        others_of = [f"{way} {median:.1f}" for way, median in medians.items() if way != "ours"]
        if others:
            share, goal = medians["ours"] / idle["ours"], ">= 0.55" if others == 1 else ""
            against = f"idle {idle['ours']:.1f}; {', '.join(others_of)}"
            row(f"mnist-5k's step beside {others} busy", ours, against, share, goal)
        else:
            best = max(found[0].values(), key=statistics.median)
            ratio_to_best = median_ratio(found[0]["ours"], best)
            row("mnist-5k's step, idle", ours, ", ".join(others_of), ratio_to_best, ">= 0.95")


PARTS = {
    "step": compare_steps,
    "products": compare_products,
    "trainer": compare_trainer,
    "pipeline": compare_pipeline,
    "busy": compare_busy,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Training speed, as ratios in the same run.")
    parser.add_argument("part", nargs="?", choices=PARTS, help="only this one; by default all")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a block, about")
    parser.add_argument("--blocks", type=int, default=7, help="of each side")
    parser.add_argument("--threads", type=int, default=0, help="of torch; by default all cores")
    options = parser.parse_args()
    runtime = open_runtime("auto", "auto", options.threads).describe()
    print(", ".join(f"{key} {value}" for key, value in runtime.items()))
    for name, part in PARTS.items():
        if options.part in (None, name):
            part(options.seconds, options.blocks, options.threads)


if __name__ == "__main__":
    main()
