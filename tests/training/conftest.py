from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from simsiam_zoo.data.packing.writer import PackedSample, pack
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.training.screen import Screen
from simsiam_zoo.training.train import train

TINY: dict[str, object] = {
    "backbone": "test_resnet",
    "data.image_size": 16,
    "data.workers": 0,
    "projector": "mlp:layers=2,hidden_dim=32,out_dim=32",
    "predictor": "mlp:hidden_dim=8",
    "training.batch_size": 16,
    "training.epochs": 2,
    "training.threads": 1,
    "training.precision": "fp32",
    "logging.interval_steps": 1,
    "evaluation.rank_samples": 48,
    "evaluation.baselines": False,
}
"""A run of 2 x 6 steps in about a second."""


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def digit_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 digits to train on in 3 shards, 64 to test on, labelled."""
    folder = tmp_path_factory.mktemp("digit-shards")
    images, labels = load_digits(return_X_y=True)
    samples = [
        PackedSample(f"{i:04d}", png((x.reshape(8, 8) * 15).astype(np.uint8)), "png", int(y))
        for i, (x, y) in enumerate(zip(images[:160], labels[:160], strict=True))
    ]
    classes = tuple(str(digit) for digit in range(10))
    pack(folder, {"train": samples[:96], "val": samples[96:]}, classes, shard_size=32)
    return folder


@pytest.fixture
def tiny(digit_shards: Path) -> Callable[..., Recipe]:
    """`tiny(**{"optim.lr": 1.0})` → a recipe of a run that takes a second."""

    def make(settings: dict[str, object] | None = None) -> Recipe:
        changed = dict(settings or {})
        data = {} if "dataset" in changed else {"dataset": str(digit_shards)}
        dropped = {key.partition(".")[0] for key in changed if "." not in key}
        base = {key: value for key, value in TINY.items() if key not in dropped}
        return Recipe.make("digits", None, {**base, **data, **changed})

    return make


@pytest.fixture
def run(tiny: Callable[..., Recipe], tmp_path: Path) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """`run(settings, name="a")` → the folder and the result of a tiny run."""

    def go(
        settings: dict[str, object] | None = None, name: str = "run", resume: bool = False
    ) -> tuple[Path, dict[str, Any]]:
        folder = tmp_path / name
        return folder, train(tiny(settings), folder, resume=resume, screen=Screen())

    return go
