from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, a fresh one for each test."""
    folder = tmp_path / "user-cache"
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(folder))
    return folder


def encode(pixels: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def random_png(seed: int, size: int = 12) -> bytes:
    shape = (size, size, 3)
    return encode(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture
def write_tar() -> Callable[[Path, Mapping[str, bytes]], Path]:
    """Write members (`"a/b.png": bytes`) with plain webdataset, whatever their names."""

    def write(path: Path, members: Mapping[str, bytes]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file, webdataset.TarWriter(file, encoder=False) as tar:
            for name, content in members.items():
                key, _, extension = name.rpartition(".")
                tar.write({"__key__": key, extension: content})
        return path

    return write
