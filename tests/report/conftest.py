from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hostile_names import HOSTILE
from PIL import Image
from tiny_runs import digits, pack_digits, tiny_recipe

from simsiam_zoo.data.batches import LoadedBatch
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.evaluation import frozen_pass
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.train import train


@pytest.fixture(scope="session")
def hostile_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 digits to train on, 64 to test on."""
    return pack_digits(tmp_path_factory.mktemp("hostile"), HOSTILE)


@pytest.fixture(scope="session")
def seen_run(hostile_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete run on them; nothing that is there may be changed."""
    folder = tmp_path_factory.mktemp("runs") / "seen"
    recipe = tiny_recipe(hostile_shards, {"evaluation.protocols": ("knn",)})
    train(recipe, folder, progress=Progress())
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A row for each pass over images that is made from now on."""
    made: list[str] = []
    real = frozen_pass.EvalLoader.__iter__

    def iterate(self: frozen_pass.EvalLoader) -> Iterator[LoadedBatch]:
        made.append("pass")
        return real(self)

    monkeypatch.setattr(frozen_pass.EvalLoader, "__iter__", iterate)
    return made


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    """24 digits to train on, without labels."""
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    pack_dataset(folder, {"train": digits(24, labelled=False)}, None)
    return folder


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Five digits, and one file that is none."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    bad = PackedSample("bad", b"\x89PNG\r\n\x1a\n and no more", "png", 1)
    pack_dataset(folder, {"train": [*digits(5), bad]}, None)
    return folder


@pytest.fixture
def many_classes(tmp_path: Path) -> Path:
    """Photographs of 500 x 375 pixels: one of each of 200 classes to test on, 40 to train on."""
    photos = []
    for seed in range(3):
        coarse = np.random.default_rng(seed).integers(0, 256, (8, 10, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(file, "JPEG")
        photos.append(file.getvalue())

    def samples(count: int) -> list[PackedSample]:
        return [PackedSample(f"{i}", photos[i * i % 3], "jpg", i) for i in range(count)]

    folder = tmp_path / "many"
    folder.mkdir()
    names = tuple(f"West Highland white terrier, or another dog, number {i}" for i in range(200))
    pack_dataset(folder, {"train": samples(40), "val": samples(200)}, names)
    return folder
