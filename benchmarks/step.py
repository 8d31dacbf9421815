"""Speed of training: our step against a plain one, a run against its step, the whole pipeline.

    python benchmarks/step.py [PART] [--seconds S] [--blocks N] [--threads T]

PART is one of these; by default all.

step      ours (the recipe's precision, channels last, fused optimiser) against the paper's
          algorithm written plainly: torchvision's network, fp32, contiguous, torch's default SGD.
          Same parameters, batch, threads and machine; both on resident, normalised batches.
          Goal: 2 x where the CPU multiplies bf16.
products  the step of `mnist-5k` with its one-output convolutions as matrix products, against the
          same step with torch's convolutions.
trainer   a run of `mnist-5k` on resident data against its bare step: what the loop, the meter and
          the log cost. Looks of the monitor and checkpoints are left out. Goal: 1.05 x its time.
pipeline  the same run from shards, the loader's processes included, as a share of the bare step's
          samples/s on resident data. Goal: 0.90.

Two sides take turns, a block of about S (2) seconds each, N (7) blocks of T threads (all cores);
medians are printed, and the ratio is the median of the ratios of neighbouring blocks.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50

from simsiam_zoo.data.batches import LoadedBatch
from simsiam_zoo.data.loader import TrainLoader
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.model.siamese import Batch
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.convolutions import OneOutputConv2d
from simsiam_zoo.runtime.device import open_runtime
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.setup import Setup, prepare, to_device, train_loader
from simsiam_zoo.training.train import train

SETTINGS = (  # name, preset, image size, batch
    ("ResNet-18 at 32 px", "cifar10", 32, 64),
    ("ResNet-50 at 64 px", "imagenet", 64, 16),
    ("ResNet-50 at 224 px", "imagenet", 224, 8),
)
SETTLE = 1.0
"""Seconds in which the loader's processes fill their queues and fall asleep before a bare block."""

Block = tuple[float, int]
"""Seconds, and the samples that were trained on in them."""


class PlainSimSiam(nn.Module):
    """Algorithm 1 of the paper, with nothing done for speed."""

    def __init__(self, backbone: nn.Module, width: int, layers: int) -> None:
        super().__init__()
        dim, hidden = 2048, 512
        widths = [width] + [dim] * layers
        projector: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            last = i == layers - 1
            projector += [nn.Linear(inputs, outputs, bias=False)]
            projector += [nn.BatchNorm1d(outputs, affine=not last)]
            projector += [] if last else [nn.ReLU(inplace=True)]
        self.encoder = nn.Sequential(backbone, *projector)
        self.predictor = nn.Sequential(
            nn.Linear(dim, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, dim),
        )

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """The loss of two views."""
        z1, z2 = self.encoder(x1), self.encoder(x2)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        d1 = F.cosine_similarity(p1, z2.detach(), dim=1).mean()
        d2 = F.cosine_similarity(p2, z1.detach(), dim=1).mean()
        return -(d1 + d2) / 2


def plain_network(preset: str) -> PlainSimSiam:
    if preset == "imagenet":
        backbone, layers = resnet50(), 3
    else:
        backbone, layers = resnet18(), 2
        backbone.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
        backbone.maxpool = nn.Identity()
    width, backbone.fc = backbone.fc.in_features, nn.Identity()
    return PlainSimSiam(backbone, width, layers)


def noise_shards(folder: Path, images: int) -> None:
    """Something for the recipe to find: its steps are on resident data."""
    rng = np.random.default_rng(0)
    encoded = [
        cv2.imencode(".png", rng.integers(0, 256, (8, 8, 3), np.uint8))[1].tobytes()
        for _ in range(images)
    ]
    samples = [PackedSample(f"{i:04d}", image, "png", 0) for i, image in enumerate(encoded)]
    pack_dataset(folder, {"train": samples}, None)


def clock(setup: Setup) -> float:
    if setup.runtime.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def bare_step(setup: Setup, batch: Batch) -> None:
    """What no trainer can do without."""
    with setup.runtime.autocast():
        loss = setup.siamese(batch)
    setup.optimizer.zero_grad(set_to_none=True)
    setup.scaler.scale(loss).backward()
    setup.scaler.step(setup.optimizer)
    setup.scaler.update()


def timed(setup: Setup, step: Callable[[], None], steps: int, batch: int) -> Block:
    began = clock(setup)
    for _ in range(steps):
        step()
    return clock(setup) - began, steps * batch


def steps_in(setup: Setup, step: Callable[[], None], seconds: float) -> int:
    """How many steps take about that long, after two that warm up."""
    step()
    step()
    return max(1, round(seconds / timed(setup, step, 1, 1)[0]))


def report(name: str, ours: list[Block], theirs: list[Block], goal: str) -> None:
    speeds = [[samples / seconds for seconds, samples in side] for side in (ours, theirs)]
    ratio = statistics.median(a / b for a, b in zip(*speeds, strict=True))
    first, second = map(statistics.median, speeds)
    print(f"{name:<34} {first:8.1f} {second:8.1f} samples/s {ratio:6.3f} {goal}", flush=True)


def compare_steps(seconds: float, blocks: int, threads: int) -> None:
    print("step: ours, plain fp32, ratio")
    for name, preset, size, batch in SETTINGS:
        with tempfile.TemporaryDirectory() as folder:
            noise_shards(Path(folder), 2 * batch)
            settings = {"training.batch_size": batch, "data.image_size": size}
            operation = {"dataset": folder, "training.threads": threads}
            setup = prepare(Recipe.make(preset, settings=settings | operation))
        device = setup.runtime.device
        theirs = plain_network(preset).to(device).train()
        assert count(theirs) == count(setup.siamese)
        sgd = torch.optim.SGD(theirs.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
        setup.schedule.apply(setup.optimizer, 0)
        x1, x2 = torch.randn(2, batch, 3, size, size, device=device).unbind()
        ready = Batch([x.contiguous(memory_format=torch.channels_last) for x in (x1, x2)])

        def plain_step(network=theirs, sgd=sgd, x1=x1, x2=x2) -> None:
            sgd.zero_grad()
            network(x1, x2).backward()
            sgd.step()

        def our_step(setup=setup, ready=ready) -> None:
            bare_step(setup, ready)

        sides = [(step, steps_in(setup, step, seconds)) for step in (our_step, plain_step)]
        taken: list[list[Block]] = [[], []]
        for _ in range(blocks):
            for found, (step, steps) in zip(taken, sides, strict=True):
                found.append(timed(setup, step, steps, batch))
        report(
            f"{name}, batch {batch}, {setup.runtime.precision}", *taken, "(goal >= 2.0 with bf16)"
        )


def compare_products(seconds: float, blocks: int, threads: int) -> None:
    print("products: one-output convolutions as products, as convolutions, ratio")
    setup = prepare(mnist(threads))
    setup.schedule.apply(setup.optimizer, 0)
    ready = to_device(setup, next(loader_of(setup)))
    swapped = [m for m in setup.siamese.modules() if type(m) is OneOutputConv2d]

    def step_with(kind: type[nn.Conv2d]) -> None:
        for module in swapped:
            module.__class__ = kind
        bare_step(setup, ready)

    batch = setup.recipe.training.batch_size
    sides = [partial(step_with, kind) for kind in (OneOutputConv2d, nn.Conv2d)]
    turns = [(step, steps_in(setup, step, seconds)) for step in sides]
    taken: list[list[Block]] = [[], []]
    for _ in range(blocks):
        for found, (step, steps) in zip(taken, turns, strict=True):
            found.append(timed(setup, step, steps, batch))
    report(f"mnist-5k, batch {batch}, {setup.runtime.precision}", *taken, "")


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


class _Done(Exception):
    """Enough blocks were timed; the run is let go."""


class TakingTurns:
    """Feeds a run, and makes bare steps beside it: a block of the run's, a block of bare ones.

    It stands in for `TrainLoader.batches`, so it sees when the run asks for each batch.

    Args:
        setup: whose bare steps are made; of the run's recipe.
        resident: feed the run these batches; None for those of its own loader.
    """

    def __init__(
        self, setup: Setup, resident: list[LoadedBatch] | None, seconds: float, blocks: int
    ) -> None:
        self.setup, self.resident, self.blocks = setup, resident, blocks
        self.batch = setup.recipe.training.batch_size
        setup.schedule.apply(setup.optimizer, 0)
        made = resident or list(itertools.islice(loader_of(setup), 2))
        ready = itertools.cycle([to_device(setup, each) for each in made])
        self.bare = lambda: bare_step(setup, next(ready))
        # Whole rows of the log, so that each block has its share of them.
        rows = max(1, round(steps_in(setup, self.bare, seconds) / 10))
        self.steps = rows * setup.recipe.logging.interval_steps
        self.run: list[Block] = []
        self.bare_blocks: list[Block] = []
        self.waits: list[float] = []

    def feed(self, source: Iterator[LoadedBatch]) -> Iterator[LoadedBatch]:
        """Batches for the run until all blocks are timed. Raises _Done."""
        for _ in range(self.blocks):
            # What the loader made ahead during the bare steps is no part of a block.
            yield from itertools.islice(source, self.steps if self.resident is None else 10)
            began, waited = clock(self.setup), 0.0
            for _ in range(self.steps):
                asked = time.perf_counter()
                batch = next(source)
                waited += time.perf_counter() - asked
                yield batch
            self.run.append((clock(self.setup) - began, self.steps * self.batch))
            self.waits.append(waited / self.run[-1][0])
            if self.resident is None:
                time.sleep(SETTLE)
            self.bare_blocks.append(timed(self.setup, self.bare, self.steps, self.batch))
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


def mnist(threads: int) -> Recipe:
    """The preset, long enough for any number of blocks, without looks and checkpoints."""
    settings = {
        "training.epochs": 10_000,
        "training.threads": threads,
        "training.checkpoint_minutes": 1e6,
        "evaluation.online_epochs": 0,
    }
    return Recipe.make("mnist-5k", settings=settings)


def compare_trainer(seconds: float, blocks: int, threads: int) -> None:
    print("trainer: a run on resident data, its bare step, time over the bare step's")
    recipe = mnist(threads)
    setup = prepare(recipe)
    turns = TakingTurns(setup, list(itertools.islice(loader_of(setup), 8)), seconds, blocks)
    turns.watch(recipe)
    over = statistics.median(
        (run / n) / (bare / m)
        for (run, n), (bare, m) in zip(turns.run, turns.bare_blocks, strict=True)
    )
    report(
        "mnist-5k, resident",
        turns.run,
        turns.bare_blocks,
        f"i.e. {over:.3f} x its time (goal <= 1.05)",
    )


def compare_pipeline(seconds: float, blocks: int, threads: int) -> None:
    print("pipeline: a run from shards, its bare step on resident data, share")
    recipe = mnist(threads)
    turns = TakingTurns(prepare(recipe), None, seconds, blocks)
    turns.watch(recipe)
    wait = 100 * statistics.median(turns.waits)
    report(
        "mnist-5k, shards", turns.run, turns.bare_blocks, f"goal >= 0.90; data wait {wait:.1f} %"
    )


PARTS = {
    "step": compare_steps,
    "products": compare_products,
    "trainer": compare_trainer,
    "pipeline": compare_pipeline,
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
