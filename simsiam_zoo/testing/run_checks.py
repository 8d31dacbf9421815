"""Checks of what works on a run from outside it, and of components in a run of five steps."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simsiam_zoo.catalog import PARTS, Resolved, catalog
from simsiam_zoo.components.datasets import digit_samples
from simsiam_zoo.data.batches import stated_sizes
from simsiam_zoo.data.packing.writer import pack_dataset
from simsiam_zoo.evaluation.protocol import (
    Features,
    FeatureSplits,
    ImageParts,
    NetworkImages,
    Score,
)
from simsiam_zoo.exchange.export import ExportSource, create_format, write_checked
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.device import Runtime
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.studies.launcher import LOG, LaunchError, Resources
from simsiam_zoo.testing.checks import Broken, ComponentUnderTest, Inapplicable, check, expect
from simsiam_zoo.testing.part_checks import SMALL
from simsiam_zoo.training.run import Run, build, train

STEPS, BATCH = 5, 16
_SIZE = {"backbone": 32}
_SMALL: dict[str, object] = {
    **SMALL,
    "data.workers": 0,
    "training.epochs": 1,
    "training.batch_size": BATCH,
    "training.threads": 1,
    "training.precision": "fp32",
    "logging.interval_steps": 1,
    "evaluation.online_epochs": 0,
    "evaluation.protocols": [],
    "evaluation.rank_samples": 32,
    "evaluation.baselines": False,
}

_CLASSES = 3
_SECONDS = 120.0

_ROWS: list[dict[str, Any]] = [
    {"step": 1, "epoch": 0, "loss": -0.25, "lr": 0.1},
    {"step": 2, "epoch": 0, "loss": -0.5, "lr": 0.1, "knn": 0.75},
    {"step": 3, "epoch": 1, "loss": -0.625, "lr": 0.05},
]
_RECIPE = {"preset": "digits", "projector": {"name": "mlp", "layers": 2}, "training": {"seed": 0}}
_RESULT = {"verdict": "learned", "reason": "a test", "figures": []}


@check("protocol")
def scores(tested: ComponentUnderTest) -> None:
    """A protocol takes FeatureSplits and gives a list of Scores, each of the test images in order;
    the same features give the same scores.

    The way out: build scores with simsiam_zoo.plugin.make_score, and seed what you draw.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for again in range(2):
            torch.manual_seed(again)
            splits = _easy_splits(Path(folder) / str(again))
            scores = tested.create_or_skip()(splits)
            expect(isinstance(scores, list) and scores, "gave no list of scores")
            for score in scores:
                _check_score(score, len(splits.test.labels))
            found.append([(score.protocol, score.top1) for score in scores])
    expect(found[0] == found[1], f"gave {found[0]}, and then {found[1]} of the same features")


def _check_score(score: Any, tests: int) -> None:
    expect(isinstance(score, Score), f"gave a {type(score).__name__}, not a Score")
    expect(score.protocol.strip(), "gave a score without the protocol's name")
    correct = torch.as_tensor(score.correct)
    right = correct.shape == (tests,)
    expect(right, f"says of {len(correct)} images if they are right, not {tests}")
    share = float(correct.float().mean())
    expect(abs(score.top1 - share) < 1e-6, f"says top1 {score.top1}, and {share} are right")
    expect(score.top1 > 1.2 / _CLASSES, f"is no better than chance where it is easy: {score.top1}")


def _easy_splits(folder: Path) -> FeatureSplits:
    """Three classes, far apart."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(990) % _CLASSES
    means = 2 * torch.randn(_CLASSES, 6, generator=generator)
    x = means[labels] + torch.randn(990, 6, generator=generator)
    train, test = (Features(x[i], labels[i], i) for i in torch.split(torch.arange(990), [900, 90]))

    def augmented(epoch: int, batch: int) -> Iterator[Features]:
        order = torch.randperm(900, generator=torch.Generator().manual_seed(epoch))
        for rows in torch.split(order[: 900 // batch * batch], batch):
            yield Features(train.x[rows], train.labels[rows])

    def parts(epoch: int, batch: int, *_: float) -> Iterator[ImageParts]:
        for views in augmented(epoch, batch):
            yield iter([(views.x.view(-1, 3, 2, 1), views.labels)])

    def centers() -> ImageParts:
        yield test.x.view(-1, 3, 2, 1), torch.arange(90)

    runtime = Runtime(torch.device("cpu"), "fp32", torch.get_num_threads())
    images = NetworkImages(_EasyNetwork, (3, 2, 1), 900, parts, centers, runtime)
    return FeatureSplits(train, test, _CLASSES, augmented, folder, images=images)


class _EasyNetwork(nn.Module):
    """What a protocol that trains a network is tried on: pixels to features, or to tokens."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.features, self.tokens = nn.Linear(6, 6), nn.Linear(6, 64)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.features(x.flatten(1))
        return features

    def forward_features(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.tokens(x.flatten(1))
        return tokens.view(len(x), 4, 16)


@check("logger")
def rows(tested: ComponentUnderTest) -> None:
    """A logger takes start(folder, recipe, step), log(row) and finish(result), also where a run
    goes on and rows come again that it has logged.

    The way out: accept any row of step, epoch and figures, and in start drop rows after that step.
    """
    with tempfile.TemporaryDirectory() as name:
        logger = tested.create_or_skip()
        logger.start(Path(name), _RECIPE, 0)
        for row in _ROWS:
            given = json.loads(json.dumps(row))
            logger.log(given)
            expect(given == row, "changed the row that it was given")
        again = tested.create_or_skip()
        again.start(Path(name), _RECIPE, 2)
        again.log(dict(_ROWS[2]))
        again.finish(_RESULT)


@check("launcher", slow=True)
def jobs(tested: ComponentUnderTest) -> None:
    """Submit runs a command, appends what it prints to log.txt in its folder and gives an id; poll
    gives its exit code, or None before; cancel asks it to stop, once; an id that is no job's is a
    LaunchError.

    The way out: follow simsiam_zoo.plugin.Launcher; thread_variables are the environment.
    """
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        launcher = tested.create_or_skip()
        stack.callback(getattr(launcher, "close", lambda: None))
        short, long = Path(name) / "short", Path(name) / "long"
        short.mkdir()
        long.mkdir()
        threads = "import os, sys; print('threads', os.environ['OMP_NUM_THREADS']); sys.exit(7)"
        job = launcher.submit([sys.executable, "-c", threads], short, Resources(cpus=1))
        code = _exit_code(launcher, job)
        expect(code == 7, f"says exit code {code} of a command that ended with 7")
        text = (short / LOG).read_text() if (short / LOG).exists() else "nothing"
        expect("threads 1" in text, f"log.txt has {text.strip()!r}, and threads 1 was printed")
        wait = [sys.executable, "-c", "import time; time.sleep(300)"]
        other = launcher.submit(wait, long, Resources(cpus=1))
        expect(other != job, f"gave two jobs the id {job!r}")
        expect(launcher.poll(other) is None, "says an exit code of a command that runs")
        launcher.cancel(other)
        launcher.cancel(other)
        expect(_exit_code(launcher, other) != 0, "says that a cancelled command ended well")
        launcher.cancel(job)  # it has ended: nothing happens
        for ask in (launcher.poll, launcher.cancel):
            try:
                ask("no such job")
            except LaunchError:
                continue
            raise Broken(f"{ask.__name__} of an unknown job raises no LaunchError")


def _exit_code(launcher: Any, job: str) -> int:
    end = time.monotonic() + _SECONDS
    while (code := launcher.poll(job)) is None:
        expect(time.monotonic() < end, f"a command of a moment has not ended in {_SECONDS:g} s")
        time.sleep(0.02)
    return int(code)


@check("format")
def written(tested: ComponentUnderTest) -> None:
    """A format is an ExportFormat: write makes a file or folder, and code gives Python that loads
    it and takes images to the features that the backbone itself gives.

    The way out: follow simsiam_zoo.plugin.ExportFormat; code may import any library.
    """
    recipe = Recipe.make("digits", None, {"backbone": "resnet18", "data.image_size": 32})
    form = create_format(tested.resolved)
    with tempfile.TemporaryDirectory() as name:
        run = Run(Path(name) / "run", recipe)
        run.__dict__.update(lock={}, result=None)  # of a run that was not evaluated
        source = ExportSource(build(recipe).eval().backbone, recipe, run=run)
        out = Path(name) / form.file
        write_checked(form, tested.resolved.name, source, out)
        expect(out.exists(), f"wrote no {form.file}")


@check(*PARTS, "augmentation", "dataset", "logger", "protocol", slow=True)
def run(tested: ComponentUnderTest) -> None:
    """A run with the component in it trains: five steps on digits, all figures finite.

    The way out: try it with simsiam-zoo train --preset digits, and --debug for the traceback.
    """
    settings = {**_SMALL, "data.image_size": _SIZE.get(tested.kind, 16), **_with(tested)}
    lines: list[str] = []
    progress = Progress()
    progress.say = lines.append  # type: ignore[assignment, method-assign]
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe.make("digits", None, settings)
        run = train(recipe, Path(folder) / "run", progress=progress)
        losses = [row["loss"] for row in run.metrics if "loss" in row]
        figures = run.figures
    expect(len(losses) == STEPS, f"the run logged {len(losses)} steps, not {STEPS}")
    expect(all(map(math.isfinite, losses)), f"the losses are {losses}")
    if tested.kind == "logger":
        failed = [line for line in lines if tested.resolved.id in line]
        expect(not failed, " ".join(failed))
    if tested.kind == "protocol":
        expect(figures, "no figure came of it")


def _with(tested: ComponentUnderTest) -> dict[str, object]:
    """The settings that put the component into the run."""
    if tested.kind == "logger":
        tested.create_or_skip()
        return {"dataset": str(_digits()), "logging.loggers": [tested.resolved.spec]}
    if tested.kind == "protocol":
        return {"dataset": str(_digits()), "evaluation.protocols": [tested.resolved.spec]}
    if tested.kind == "dataset":
        images = len(tested.create_or_skip().train)
        if images < STEPS:
            raise Broken(f"has {images} images, and {STEPS} steps need as many")
        # the steps are those of an epoch, the rest of which is dropped
        return {"dataset": tested.resolved.spec, "training.batch_size": images // STEPS}
    return {"dataset": str(_digits()), tested.kind: tested.resolved.spec, **_with_views(tested)}


def _with_views(tested: ComponentUnderTest) -> dict[str, object]:
    """What goes with an augmentation that states its views, or with a policy that takes any."""
    kind, part = tested.kind, tested.resolved
    stated = _stated(part) if kind == "augmentation" else None
    if not (stated not in (None, 2) or (kind == "gradient" and _compared(part) == 0)):
        return {}
    other = "gradient" if kind == "augmentation" else "augmentation"
    for entry in catalog().entries(other):
        if entry.distribution == tested.plugin.distribution and not entry.is_family:
            found = catalog().resolve(other, entry.full)
            if _compared(found) in (0, stated) if stated else _stated(found):
                return {other: entry.full}
    raise Inapplicable(f"its package has no {other} for its views")


def _stated(augmentation: Resolved) -> int | None:
    sizes = stated_sizes(augmentation.create(), 16)
    return None if sizes is None else len(sizes)


def _compared(policy: Resolved) -> int:
    views: int = policy.create(dim=32, dataset_size=80, steps_per_epoch=STEPS, steps=STEPS).views
    return views


@functools.cache
def _digits() -> Path:
    """80 of scikit-learn's digits to train on, 40 to test on, packed for this process."""
    folder = Path(tempfile.mkdtemp(prefix="simsiam-zoo-digits-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    samples, split = digit_samples(STEPS * BATCH + 40), STEPS * BATCH
    classes = tuple(map(str, range(10)))
    pack_dataset(folder, {"train": samples[:split], "val": samples[split:]}, classes)
    return folder
