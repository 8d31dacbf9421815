"""The last check: the component in a real run, of five steps on digits."""

from __future__ import annotations

import atexit
import functools
import io
import math
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.testing.checks import Broken, check, expect
from simsiam_zoo.testing.inputs import made
from simsiam_zoo.testing.plugins import Subject
from simsiam_zoo.training.run import train

STEPS, BATCH = 5, 16
_SIZE = {"backbone": 32}
_SMALL: dict[str, object] = {
    "backbone": "test_resnet",
    "projector": "mlp:layers=2,hidden_dim=32,out_dim=32",
    "predictor": "mlp:hidden_dim=8",
    "gradient": "stop-gradient",
    "loss": "cosine",
    "data.workers": 0,
    "training.epochs": 1,
    "training.batch_size": BATCH,
    "training.threads": 1,
    "training.precision": "fp32",
    "logging.interval_steps": 1,
    "logging.knn_epochs": 0,
    "evaluation.protocols": [],
    "evaluation.rank_samples": 32,
    "evaluation.baselines": False,
}


class _Heard(Progress):
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@check(
    "run",
    *PARTS,
    "augmentation",
    "dataset",
    "logger",
    "protocol",
    asks="a run with the component in it trains: five steps on digits, all figures finite.",
    way_out="try it with simsiam-zoo train --preset digits, and --debug for the traceback.",
    slow=True,
)
def a_run_trains(subject: Subject) -> None:
    """In this process, into a folder that is removed again."""
    settings = {**_SMALL, "data.image_size": _SIZE.get(subject.kind, 16), **_with(subject)}
    heard = _Heard()
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe.make("digits", None, settings)
        run = train(recipe, Path(folder) / "run", progress=heard)
        losses = [row["loss"] for row in run.metrics if "loss" in row]
        figures = run.figures
    expect(len(losses) == STEPS, f"the run logged {len(losses)} steps, not {STEPS}")
    expect(all(map(math.isfinite, losses)), f"the losses are {losses}")
    if subject.kind == "logger":
        failed = [line for line in heard.lines if subject.part.id in line]
        expect(not failed, " ".join(failed))
    if subject.kind == "protocol":
        expect(figures, "no figure came of it")


def _with(subject: Subject) -> dict[str, object]:
    """The settings that put the component into the run."""
    if subject.kind == "logger":
        made(subject)
        return {"dataset": str(_digits()), "logging.loggers": [subject.spec]}
    if subject.kind == "protocol":
        return {"dataset": str(_digits()), "evaluation.protocols": [subject.spec]}
    if subject.kind == "dataset":
        images = len(made(subject).train)
        if images < STEPS:
            raise Broken(f"has {images} images, and {STEPS} steps need as many")
        # the steps are those of an epoch, the rest of which is dropped
        return {"dataset": subject.spec, "training.batch_size": images // STEPS}
    return {"dataset": str(_digits()), subject.kind: subject.spec}


@functools.cache
def _digits() -> Path:
    """80 of scikit-learn's digits to train on, 40 to test on, packed for this process."""
    folder = Path(tempfile.mkdtemp(prefix="simsiam-zoo-digits-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    images, labels = load_digits(return_X_y=True)
    samples = []
    for i in range(STEPS * BATCH + 40):
        file = io.BytesIO()
        Image.fromarray((images[i].reshape(8, 8) * 15).astype(np.uint8)).save(file, "PNG")
        samples.append(PackedSample(f"{i:04d}", file.getvalue(), "png", int(labels[i])))
    split = STEPS * BATCH
    classes = tuple(str(digit) for digit in range(10))
    pack_dataset(folder, {"train": samples[:split], "val": samples[split:]}, classes)
    return folder
