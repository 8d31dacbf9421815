from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import webdataset


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, a fresh one for each test."""
    folder = tmp_path / "user-cache"
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(folder))
    return folder


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
