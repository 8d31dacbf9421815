"""Checks of what is around a network: protocols, loggers, launchers, formats."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from simsiam_zoo.evaluation.features import Features, FeatureSplits
from simsiam_zoo.evaluation.protocol import Score
from simsiam_zoo.exchange.export import ExportSource, create_format, write_checked
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.studies.launcher import LOG, LaunchError, Resources
from simsiam_zoo.testing.checks import Broken, check, expect
from simsiam_zoo.testing.inputs import made
from simsiam_zoo.testing.plugins import Subject
from simsiam_zoo.training.run import Run, build

_CLASSES = 3
_SECONDS = 120.0

_ROWS: list[dict[str, Any]] = [
    {"step": 1, "epoch": 0, "loss": -0.25, "lr": 0.1},
    {"step": 2, "epoch": 0, "loss": -0.5, "lr": 0.1, "knn": 0.75},
    {"step": 3, "epoch": 1, "loss": -0.625, "lr": 0.05},
]
_RECIPE = {"preset": "digits", "projector": {"name": "mlp", "layers": 2}, "training": {"seed": 0}}
_RESULT = {"verdict": "learned", "reason": "a test", "figures": []}


@check(
    "figures",
    "protocol",
    asks="a protocol takes FeatureSplits and gives a list of Scores, each of the test images in"
    " order; the same features give the same scores.",
    way_out="build scores with simsiam_zoo.plugin.make_score, and seed what you draw.",
)
def figures_are_figures(subject: Subject) -> None:
    """On features of three classes that any classifier tells apart better than chance."""
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for again in range(2):
            torch.manual_seed(again)
            splits = _bench(Path(folder) / str(again))
            found.append(made(subject)(splits))
        for figures in found:
            expect(isinstance(figures, list) and figures, "gave no list of figures")
            for figure in figures:
                _check_figure(figure, splits)
        first, second = ([(f.protocol, f.top1) for f in figures] for figures in found)
        expect(first == second, f"gave {first}, and then {second} of the same features")


def _check_figure(figure: object, splits: FeatureSplits) -> None:
    expect(isinstance(figure, Score), f"gave a {type(figure).__name__}, not a Score")
    assert isinstance(figure, Score)
    expect(figure.protocol.strip(), "gave a figure without the protocol's name")
    correct = torch.as_tensor(figure.correct)
    tests = len(splits.test.labels)
    expect(
        correct.shape == (tests,), f"says of {len(correct)} images if they are right, not {tests}"
    )
    share = float(correct.float().mean())
    expect(abs(figure.top1 - share) < 1e-6, f"says top1 {figure.top1}, and {share} are right")
    expect(
        figure.top1 > 1.2 / _CLASSES, f"is no better than chance where it is easy: {figure.top1}"
    )


def _bench(folder: Path) -> FeatureSplits:
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    means = 2 * torch.randn(_CLASSES, 6, generator=generator)

    def draw(n: int) -> Features:
        labels = torch.arange(n) % _CLASSES
        x = means[labels] + torch.randn(n, 6, generator=generator)
        return Features(x, labels, torch.arange(n))

    train, test = draw(900), draw(90)  # of 1 % of the labels, 3 in each class

    def augmented(epoch: int, batch: int) -> Iterator[Features]:
        order = torch.randperm(len(train.x), generator=torch.Generator().manual_seed(epoch))
        for rows in torch.split(order, batch):
            if len(rows) == batch:
                yield Features(train.x[rows], train.labels[rows])

    return FeatureSplits(train, test, _CLASSES, augmented, folder)


@check(
    "rows",
    "logger",
    asks="a logger takes start(folder, recipe, step), log(row) and finish(result), also where a run"
    " goes on and rows come again that it has logged.",
    way_out="accept any row of step, epoch and figures, and in start drop rows after that step.",
)
def a_logger_takes_its_rows(subject: Subject) -> None:
    """A run that is cut after its last row, goes on from step 2, and ends."""
    with tempfile.TemporaryDirectory() as name:
        logger = made(subject)
        logger.start(Path(name), _RECIPE, 0)
        for row in _ROWS:
            given = json.loads(json.dumps(row))
            logger.log(given)
            expect(given == row, "changed the row that it was given")
        again = made(subject)
        again.start(Path(name), _RECIPE, 2)
        again.log(dict(_ROWS[2]))
        again.finish(_RESULT)


@check(
    "jobs",
    "launcher",
    asks="submit runs a command, appends what it prints to log.txt in its folder and gives an id;"
    " poll gives its exit code, or None before; cancel asks it to stop, once; an id that is no"
    " job's is a LaunchError.",
    way_out="follow simsiam_zoo.plugin.Launcher; thread_variables are the environment.",
    slow=True,
)
def a_launcher_runs_jobs(subject: Subject) -> None:
    """One that ends with code 7, and one that is cancelled twice."""
    with tempfile.TemporaryDirectory() as name:
        launcher = made(subject)
        try:
            _run_jobs(launcher, Path(name))
        finally:
            close = getattr(launcher, "close", None)
            if close is not None:
                close()


@check(
    "written",
    "format",
    asks="a format is an ExportFormat: write makes a file or folder, and code gives Python that"
    " loads it and takes images to the features that the backbone itself gives.",
    way_out="follow simsiam_zoo.plugin.ExportFormat; code may import any library.",
)
def a_format_gives_the_same_features(subject: Subject) -> None:
    """ResNet-18, which every library has, at 32 px."""
    recipe = Recipe.make("digits", None, {"backbone": "resnet18", "data.image_size": 32})
    form = create_format(subject.part)
    with tempfile.TemporaryDirectory() as name:
        run = Run(Path(name) / "run", recipe)
        run.__dict__.update(lock={}, result=None)  # of a run that was not evaluated
        source = ExportSource(build(recipe).eval().backbone, recipe, run=run)
        out = Path(name) / form.file
        write_checked(form, subject.part.name, source, out)
        expect(out.exists(), f"wrote no {form.file}")


def _run_jobs(launcher: Any, folder: Path) -> None:
    short, long = folder / "short", folder / "long"
    for each in (short, long):
        each.mkdir()
    threads = "import os, sys; print('threads', os.environ['OMP_NUM_THREADS']); sys.exit(7)"
    job = launcher.submit([sys.executable, "-c", threads], short, Resources(cpus=1))
    code = _ended(launcher, job)
    expect(code == 7, f"says exit code {code} of a command that ended with 7")
    text = (short / LOG).read_text() if (short / LOG).exists() else "nothing"
    expect("threads 1" in text, f"log.txt has {text.strip()!r} of a command that printed threads 1")
    wait = "import time; print('ready', flush=True); time.sleep(300)"
    other = launcher.submit([sys.executable, "-c", wait], long, Resources(cpus=1))
    expect(other != job, f"gave two jobs the id {job!r}")
    expect(launcher.poll(other) is None, "says an exit code of a command that runs")
    _until(lambda: (long / LOG).exists() and "ready" in (long / LOG).read_text())
    launcher.cancel(other)
    launcher.cancel(other)
    code = _ended(launcher, other)
    expect(code != 0, "says that a cancelled command ended well")
    launcher.cancel(job)  # it has ended: nothing happens
    for ask in (launcher.poll, launcher.cancel):
        try:
            ask("no such job")
        except LaunchError:
            continue
        raise Broken(f"{ask.__name__} of an unknown job raises no LaunchError")


def _ended(launcher: Any, job: str) -> int:
    codes: list[int] = []

    def ended() -> bool:
        code = launcher.poll(job)
        if code is not None:
            codes.append(code)
        return code is not None

    _until(ended)
    return codes[0]


def _until(true: Any) -> None:
    end = time.monotonic() + _SECONDS
    while not true():
        expect(time.monotonic() < end, f"a command of a moment has not ended in {_SECONDS:g} s")
        time.sleep(0.02)
