from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import webdataset
from made_images import random_png
from served import Server, serve

from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.data.remote import transfer


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


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 training shards of 4 images and 2 test shards."""
    folder = tmp_path_factory.mktemp("packed")
    samples = [PackedSample(f"k{i:02d}", random_png(i, 16), "png", i % 3) for i in range(56)]
    pack_dataset(
        folder, {"train": samples[:48], "val": samples[48:]}, ("a", "b", "c"), shard_size=4
    )
    return folder


@pytest.fixture
def server(packed: Path, tmp_path: Path) -> Iterator[Server]:
    """Serves a copy of them, without the indexes."""
    folder = tmp_path / "served"
    folder.mkdir()
    for file in packed.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    with serve(folder) as served:
        yield served


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for seconds before it tries again."""
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(transfer, "LONGEST_WAIT", 0.01)
    monkeypatch.setattr(transfer, "ATTEMPTS", 4)


@pytest.fixture
def memory_stays_bounded() -> Iterator[None]:
    """The peak of this process grows by less than 64 MiB in a test."""
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():  # no Linux: the rest of each test still counts
        yield
        return
    clear.write_text("5")  # the high-water mark starts here
    before = peak_kib()
    yield
    assert peak_kib() - before < 64 << 10


def peak_kib() -> int:
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
