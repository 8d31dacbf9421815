"""Shards that change, or whose index, manifest or checksum says something else."""

from __future__ import annotations

import json
import os

import pytest
from made_images import random_png

from simsiam_zoo.data import stated as stated_module
from simsiam_zoo.data.manifest import index_path
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.data.stated import index_folder
from simsiam_zoo.errors import DataError


def test_a_foreign_shard_is_scanned_once_and_again_when_it_changed(
    tmp_path, write_tar, cache, monkeypatch
):
    path = write_tar(tmp_path / "data" / "a.tar", {"0.png": random_png(0)})
    path.parent.chmod(0o555)  # the source may be read-only: nothing is written beside it
    scans = []
    scan = stated_module.scan
    monkeypatch.setattr(stated_module, "scan", lambda path: scans.append(path) or scan(path))

    assert len(open_shards(str(path)).train) == len(open_shards(str(path)).train) == 1
    assert scans == [path]
    assert list(path.parent.iterdir()) == [path]

    write_tar(path, {"0.png": random_png(0), "1.png": random_png(1)})
    assert len(open_shards(str(path)).train) == 2

    for index in (cache / "indexes").iterdir():
        index.write_bytes(index.read_bytes()[:100])
    assert len(open_shards(str(path)).train) == 2
    assert len(scans) == 3


def test_a_shard_that_changes_under_its_reader_is_noticed(tmp_path, write_tar):
    path = write_tar(tmp_path / "a.tar", {"0.png": random_png(0), "1.png": random_png(1)})
    shards = open_shards(str(path)).train
    shards.read(0)
    content = bytearray(path.read_bytes())
    header = content.index(b"1.png")
    content[header : header + 5] = b"2.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar: 1: .*changed at offset"):
        shards.read(1)


def test_a_digest_without_checksums_changes_when_bytes_may_have(tmp_path, write_tar):
    """Tars are padded: a shard of other images, or of other labels, may well have its size."""
    path = write_tar(tmp_path / "one" / "a.tar", {"0.png": random_png(0), "0.cls": b"1"})
    os.utime(path, ns=(0, 1_000_000_001))
    shards = open_shards(str(path)).train
    assert "by their size and the time of their last change only" in (shards.digest_note or "")
    assert open_shards(str(path)).train.digest == shards.digest
    size = path.stat().st_size
    write_tar(path, {"0.png": random_png(0), "0.cls": b"2"})
    os.utime(path, ns=(0, 1_000_000_002))
    assert path.stat().st_size == size
    changed = open_shards(str(path)).train
    assert changed.labels().tolist() == [2]
    assert changed.digest != shards.digest
    index_folder([path], checksums=True)  # a checksum stands for the bytes, wherever they lie
    stated = open_shards(str(path)).train
    assert stated.digest_note is None
    moved = path.parent.rename(tmp_path / "two") / "a.tar"
    os.utime(moved)
    assert open_shards(str(moved)).train.digest == stated.digest


def test_an_index_beside_a_shard_that_changed_is_not_believed(tmp_path, write_tar):
    path = write_tar(tmp_path / "train-0.tar", {"0.png": random_png(0), "0.cls": b"1"})
    index_folder([path])
    write_tar(path, {"0.png": random_png(0), "0.cls": b"2"})
    os.utime(path, ns=(0, 5))
    assert open_shards(str(tmp_path)).train.labels().tolist() == [2]
    write_tar(path, {"0.png": random_png(0), "1.png": random_png(0)})
    with pytest.raises(DataError, match="holds 2 samples, and its manifest states 1"):
        open_shards(str(tmp_path))


def test_a_checksum_stands_for_no_shard_that_changed_after_its_index(tmp_path, write_tar, cache):
    """Other labels are refused, and so are other images."""

    def write(label: bytes, image: int) -> None:
        write_tar(path, {"0.png": random_png(image), "0.cls": label})

    path = tmp_path / "train-0.tar"
    write(b"1", 0)
    index_folder([path], checksums=True)
    later = index_path(path).stat().st_mtime_ns + 1
    digest = open_shards(str(tmp_path)).train.digest
    assert not cache.exists()
    os.utime(path, ns=(later, later))  # the same bytes, copied again
    assert open_shards(str(tmp_path)).train.digest == digest
    size = path.stat().st_size
    write(b"2", 0)
    os.utime(path, ns=(later, later + 1))
    assert path.stat().st_size == size
    with pytest.raises(DataError, match=r"sha256 differs\n.*`simsiam-zoo index --checksums`"):
        open_shards(str(tmp_path))
    with pytest.raises(DataError, match=r"bytes changed\n.*remove manifest\.json"):
        index_folder([path])  # the old checksum would stand for the new labels
    write(b"1", 1)
    os.utime(path, ns=(later, later + 2))
    assert path.stat().st_size == size
    with pytest.raises(DataError, match="sha256 differs"):
        open_shards(str(tmp_path))
    (tmp_path / "manifest.json").unlink()  # the way out
    index_folder([path], checksums=True)
    assert open_shards(str(tmp_path)).train.read(0).image == random_png(1)


def test_a_shard_that_does_not_fit_the_info_file_beside_it_is_refused(tmp_path, write_tar):
    path = write_tar(tmp_path / "a.tar", {f"{i}.png": random_png(i) for i in range(3)})
    write_tar(tmp_path / "b.tar", {"0.png": random_png(0)})  # nothing is stated of it
    info = tmp_path / "_info.json"

    def state(count: object) -> None:
        split = {"filenames": ["a.tar"], "shard_lengths": [count]}
        info.write_text(json.dumps({"splits": {"train": split}}))

    state(3)
    assert open_shards(str(tmp_path)).train.counts == (3, 1)
    state(4)
    with pytest.raises(DataError, match=r"a\.tar holds 3 samples, and .*_info\.json states 4"):
        open_shards(str(path))
    state("4")
    with pytest.raises(DataError, match=r"_info\.json is damaged"):
        open_shards(str(path))
    state(4)
    index_folder([path])  # counts anew, and its manifest holds
    assert open_shards(str(path)).train.counts == (3,)
