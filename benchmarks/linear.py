"""The grid of linear classifiers: trained together against one after another, and in epochs.

    python benchmarks/linear.py [grid|epoch] [--images N] [--width D] [--classes C] [--epochs E]
                                [--blocks B] [--threads T]

grid   the protocol `linear`'s grid of 20 (lr, wd) by `train_together` in one pass, against the
       same function called with each pair alone. Same features, orders and steps; that both give
       the same classifiers is checked first. E (5) epochs. Goal: 3 x.
epoch  the frozen pass over the images of `mnist-5k` (features/s), and on these features the whole
       protocol (50 epochs of the grid, the held-out choice, the training anew and the test), each
       as a share of the time of one training epoch. The epoch's time is that of its bare steps on
       resident batches of noise: a few are timed, for as many as it has.

The features of `grid` are Gaussian, N x D in float32, of C classes; by default 4,000 x 512 of 10,
as those of `mnist-5k`. Its two sides take turns; the ratio is the median over B blocks. Wall clock.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from shared.rows import row
from simsiam_zoo.catalog import create_component
from simsiam_zoo.evaluation.frozen_pass import FrozenNetwork, FrozenPass, Transform
from simsiam_zoo.evaluation.linear import Classifiers, default_batch, train_together
from simsiam_zoo.evaluation.protocol import Features, FeatureSplits
from simsiam_zoo.model.siamese import Batch
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.device import open_runtime
from simsiam_zoo.runtime.optim import REFERENCE_BATCH
from simsiam_zoo.training.setup import Setup, prepare

STEPS = 4
"""Training steps that are timed, after one that warms up."""


def features(images: int, width: int, classes: int, seed: int) -> Features:
    """Classes that overlap."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % classes
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(9))
    x = torch.randn(images, width, generator=generator).add_(0.2 * centres[labels])
    return Features(x, labels)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare_grid(options: argparse.Namespace) -> None:
    """Together against one after another."""
    train = features(options.images, options.width, options.classes, 0)
    batch = default_batch(options.images)
    grid = create_component("protocol", "linear").grid
    pairs = [(lr * batch / REFERENCE_BATCH, wd) for lr, wd in grid]
    rows = torch.arange(options.images)

    def run(chosen: Sequence[tuple[float, float]]) -> Classifiers:
        return train_together(
            train, rows, options.classes, chosen, epochs=options.epochs, batch=batch
        )

    together, alone = run(pairs), [run([pair]) for pair in pairs[:2]]
    for at, each in enumerate(alone):
        torch.testing.assert_close(together.weight[:, at], each.weight[:, 0], rtol=1e-3, atol=1e-5)
    ours, theirs = [], []
    for _ in range(options.blocks):
        ours.append(seconds(lambda: run(pairs)))
        theirs.append(seconds(lambda: [run([pair]) for pair in pairs]))
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    row(
        f"grid of {len(pairs)} classifiers, {options.images} x {options.width}, together",
        f"{statistics.median(ours):.2f} s",
        f"one after another {statistics.median(theirs):.2f} s",
        ratio,
        ">= 3",
    )


def compare_epoch(options: argparse.Namespace) -> None:
    """The frozen pass and the protocol against a training epoch."""
    setup = prepare(Recipe.make("mnist-5k", settings={"training.threads": options.threads}))
    data = setup.recipe.data
    transform = Transform(data.image_size, setup.recipe.evaluation.crop, data.mean, data.std)
    with tempfile.TemporaryDirectory() as folder:
        name, network = setup.recipe.backbone.name, setup.siamese.backbone
        networks = [FrozenNetwork(name, network)]
        frozen = FrozenPass(networks, transform, setup.runtime, Path(folder), workers=0)
        splits: list[Features] = []
        sets = [each for each in (setup.dataset.train, setup.dataset.test) if each is not None]
        passed = seconds(
            lambda: splits.extend(
                frozen.features(each, "images", whole=True)[0][0] for each in sets
            )
        )
        protocol = create_component("protocol", "linear")
        took = seconds(lambda: protocol(FeatureSplits(splits[0], splits[1], 10)))
    epoch = epoch_seconds(setup)
    images = sum(len(split.labels) for split in splits)
    against = f"a training epoch {epoch:.1f} s"
    speed = f"{passed:.1f} s, {images / passed:,.0f} images/s"
    row(f"mnist-5k, {name}: features of {images:,} images", speed, against, passed / epoch)
    row("mnist-5k: the protocol `linear` on them", f"{took:.1f} s", against, took / epoch)


def epoch_seconds(setup: Setup) -> float:
    """As many bare steps as the run's epoch has, by the time of a few."""
    side, batch = setup.recipe.data.image_size, setup.recipe.training.batch_size
    noise = torch.randn(2, batch, 3, side, side, device=setup.runtime.device)
    ready = Batch([x.contiguous(memory_format=torch.channels_last) for x in noise.unbind()])
    setup.schedule.apply(setup.optimizer, 0)

    def step() -> None:
        with setup.runtime.autocast():
            loss = setup.siamese(ready)
        setup.optimizer.zero_grad(set_to_none=True)
        setup.scaler.scale(loss).backward()
        setup.scaler.step(setup.optimizer)
        setup.scaler.update()
        loss.item()  # waits for the device

    step()
    return seconds(lambda: [step() for _ in range(STEPS)]) / STEPS * setup.plan.steps


PARTS = {"grid": compare_grid, "epoch": compare_epoch}


def main() -> None:
    parser = argparse.ArgumentParser(description="Linear classifiers, as ratios in the same run.")
    parser.add_argument("part", nargs="?", choices=PARTS, help="only this one; by default both")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=5, help="of `grid`")
    parser.add_argument("--blocks", type=int, default=3, help="of each side")
    parser.add_argument("--threads", type=int, default=0, help="of torch; by default all cores")
    options = parser.parse_args()
    runtime = open_runtime("cpu", "auto", options.threads).describe()
    print(", ".join(f"{key} {value}" for key, value in runtime.items()))
    for name, part in PARTS.items():
        if options.part in (None, name):
            part(options)


if __name__ == "__main__":
    main()
