from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hostile_names import HOSTILE
from PIL import Image
from sklearn.datasets import load_digits

from simsiam_zoo.data.packing.writer import PackedSample, pack
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.training.screen import Screen
from simsiam_zoo.training.train import train

SETTINGS: dict[str, object] = {
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
    "evaluation.protocols": ("knn",),
}


def digits(count: int, labelled: bool = True) -> list[PackedSample]:
    images, labels = load_digits(return_X_y=True)
    samples = []
    for i, (x, y) in enumerate(zip(images[:count], labels[:count], strict=True)):
        file = io.BytesIO()
        Image.fromarray((x.reshape(8, 8) * 15).astype(np.uint8)).save(file, "PNG")
        samples.append(PackedSample(f"{i:04d}", file.getvalue(), "png", int(y) if labelled else -1))
    return samples


@pytest.fixture(scope="session")
def hostile_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 digits to train on, 64 to test on."""
    folder = tmp_path_factory.mktemp("hostile")
    samples = digits(160)
    pack(folder, {"train": samples[:96], "val": samples[96:]}, HOSTILE, shard_size=32)
    return folder


@pytest.fixture(scope="session")
def seen_run(hostile_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete run on them; nobody may write there."""
    folder = tmp_path_factory.mktemp("runs") / "seen"
    recipe = Recipe.make("digits", None, {**SETTINGS, "dataset": str(hostile_shards)})
    train(recipe, folder, screen=Screen())
    return folder


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    """24 digits to train on, without labels."""
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    pack(folder, {"train": digits(24, labelled=False)}, None)
    return folder


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Five digits, and one file that is none."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    bad = PackedSample("bad", b"\x89PNG\r\n\x1a\n and no more", "png", 1)
    pack(folder, {"train": [*digits(5), bad]}, None)
    return folder
