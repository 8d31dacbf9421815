"""What is read from remote shards: the same as from those on disk."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from remote_shards import contents
from served import Server, status

from simsiam_zoo.components.augmentations import DigitsAugmentation
from simsiam_zoo.data import sources
from simsiam_zoo.data.loader import EvalLoader, TrainLoader
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.remote import stores, urls
from simsiam_zoo.data.remote.ahead import limit_cache
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.data.stated import index_folder
from simsiam_zoo.errors import DataError, InputError

pytestmark = pytest.mark.usefixtures("hasty")

DIGITS = DigitsAugmentation(min_scale=0.4, rotation=15, shear=0.3, brightness=0.4, contrast=0.4)


def test_remote_shards_are_the_local_ones(server: Server, packed: Path) -> None:
    for source in ("", "/train-{000000..000011}.tar", "/train-000003.tar"):
        near, far = open_shards(str(packed) + source), open_shards(server.url + source)
        assert not server.asked(".tar")  # what is stated is enough to begin
        assert far.train.digest == near.train.digest
        assert far.train.counts == near.train.counts
        assert far.classes == near.classes
        assert (far.test is None) == (near.test is None)
    near, far = open_shards(str(packed)), open_shards(f"{server.url}/")
    assert contents(far.train) == contents(near.train)
    assert contents(far.test) == contents(near.test)
    assert far.train.labels().tolist() == near.train.labels().tolist()
    assert len(server.asked(".tar")) == 14
    assert far.train.name(5) == f"{server.url}/train-000001.tar: k05"


def test_names_of_any_letters_are_the_same_data_everywhere(server: Server, packed: Path) -> None:
    content = (packed / "train-000000.tar").read_bytes()
    folder = server.folder / "odd"
    folder.mkdir()
    for name in ("train é 0.tar", "train%20é 1.tar"):
        (folder / name).write_bytes(content)
    index_folder(sorted(folder.glob("*.tar")), checksums=True)
    near, far = open_shards(str(folder)).train, open_shards(f"{server.url}/odd").train
    assert contents(far) == contents(near)
    assert far.digest == near.digest
    pattern = open_shards(f"{server.url}/odd/train%20%C3%A9%20{{0..0}}.tar").train
    assert [shard.name for shard in pattern.shards] == ["train é 0.tar"]


def test_a_store_that_denies_what_is_not_there_may_have_other_counts(server: Server) -> None:
    """S3 answers so over http where nobody may list the bucket."""
    (server.folder / "manifest.json").unlink()
    server.misbehave["manifest.json"] = [status(403)] * 2
    assert len(open_shards(server.url).train) == 48
    server.misbehave["_info.json"] = [status(403)]
    with pytest.raises(DataError, match=r"manifest\.json: access is denied"):
        open_shards(server.url)


def test_an_object_store_takes_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    shard = {"name": "train%20a.tar", "samples": 1, "bytes": 2048, "sha256": "0" * 64}
    split = {"samples": 1, "classes": None, "shards": [shard]}
    manifest = {"format": "simsiam-zoo shards", "version": 1, "splits": {"train": split}}
    monkeypatch.setattr(sources, "read_small", lambda url, most: json.dumps(manifest).encode())
    for source in ("s3://bucket/x", "s3://bucket/x/train%20a.tar"):
        (found,) = open_shards(source).train.shards
        assert (found.location, found.name) == ("s3://bucket/x/train%20a.tar", "train%20a.tar")


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_bit_identical_to_local_ones(
    server: Server, packed: Path, workers: int
) -> None:
    near, far = open_shards(str(packed)), open_shards(server.url)
    plan = SampleOrder(near.train.counts, seed=3, batch=8, lanes=2, window=2)
    limit_cache(far, 2, 2, 10 * max(s.bytes for s in far.train.shards))

    def batches(shards: ShardSet, workers: int) -> list[object]:
        loader = TrainLoader(shards, plan, DIGITS, 16, seed=5, epochs=2, workers=workers)
        return list(loader.batches(0, 1))

    ours, theirs = batches(far.train, workers), batches(near.train, 0)
    assert len(ours) == len(theirs) == 11
    for a, b in zip(ours, theirs, strict=True):
        assert (a.epoch, a.step) == (b.epoch, b.step)
        assert torch.equal(a.ids, b.ids)
        assert torch.equal(a.pixels[0], b.pixels[0])
        assert torch.equal(a.labels, b.labels)
    evaluated = list(EvalLoader(far.test, 16, batch=3)), list(EvalLoader(near.test, 16, batch=3))
    for a, b in zip(*evaluated, strict=True):
        assert torch.equal(a.pixels[0], b.pixels[0])


def test_counts_come_from_timms_file_or_the_set_is_refused(server: Server, packed: Path) -> None:
    near = open_shards(str(packed)).train
    (server.folder / "manifest.json").unlink()
    far = open_shards(server.url).train
    assert far.counts == near.counts
    assert [s.bytes for s in far.shards] == [s.bytes for s in near.shards]
    assert contents(far) == contents(near)

    info = server.folder / "_info.json"
    whole = json.loads(info.read_text())
    for damage in (
        {"filenames": ["../x.tar"], "shard_lengths": [1]},
        {"filenames": ["x.tar"], "shard_lengths": [-1]},
        {"filenames": ["x.tar"], "shard_lengths": [1e300]},
        {"filenames": ["x.tar"], "shard_lengths": []},
        {"filenames": "x-{0..99999999999}.tar", "shard_lengths": []},
        {"filenames": None, "shard_lengths": None},
        [],
    ):
        info.write_text(json.dumps({"splits": {"train": damage}}))
        with pytest.raises(DataError, match=r"_info\.json is damaged"):
            open_shards(server.url)
    for text in ("<html>", "[" * 100_000, "9" * 10_000):
        info.write_text(text)
        with pytest.raises(DataError, match=r"_info\.json is damaged"):
            open_shards(server.url)
    del whole["splits"]["train"]["filenames"][3], whole["splits"]["train"]["shard_lengths"][3]
    info.write_text(json.dumps(whole))
    with pytest.raises(InputError, match=r"train-000003.tar: it is none of.*(\n.*)*--stream"):
        open_shards(f"{server.url}/train-{{000000..000005}}.tar")
    info.unlink()
    with pytest.raises(InputError, match="simsiam-zoo index"):
        open_shards(server.url)


def test_a_manifest_is_not_read_beyond_its_bound(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_MANIFEST_BYTES", 100)
    with pytest.raises(DataError, match=r"manifest.json is absurdly large"):
        open_shards(server.url)


def test_object_stores_are_read_through_fsspec(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(urls, "SCHEMES", (*urls.SCHEMES, "memory"))
    monkeypatch.setattr(stores, "OBJECT_BLOCK", 1000)
    for file in packed.glob("*.*"):
        memory.pipe_file(f"/bucket/{file.name}", file.read_bytes())
    try:
        near, far = open_shards(str(packed)), open_shards("memory://bucket/")
        assert far.train.digest == near.train.digest
        whole, failures = type(memory).cat_file, [3, 7]

        def flaky(self: object, path: str, start: int, end: int, **options: object) -> bytes:
            failures[:] = [left - 1 for left in failures if left]
            if 0 in failures:
                raise ConnectionError("https://signed?hunter2")
            return whole(self, path, start=start, end=end, **options)

        def denied(self: object, path: str) -> None:
            raise PermissionError("hunter2")

        monkeypatch.setattr(type(memory), "cat_file", flaky)
        assert contents(far.train) == contents(near.train)
        memory.rm("/bucket/val-000001.tar")
        with pytest.raises(DataError, match=r"memory://bucket/val-000001.tar cannot be had"):
            far.test.read(7)
        with monkeypatch.context() as patch:
            patch.setattr(type(memory), "info", denied)
            with pytest.raises(DataError, match=r"access is denied \(PermissionError\)\n.*environ"):
                open_shards("memory://bucket/")
        memory.rm("/bucket/manifest.json")
        assert open_shards("memory://bucket/train-000003.tar").train.counts == (4,)
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_missing_store_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InputError, match=r"pip install 'simsiam-zoo\[s3\]'"):
        open_shards("s3://bucket/")


def test_shards_replaced_by_others_of_equal_size_are_not_read_from_the_cache(
    server: Server, packed: Path
) -> None:
    """Nobody states a checksum: what the server calls the version tells them apart."""
    (server.folder / "manifest.json").unlink()
    before = open_shards(server.url).train
    first = contents(before)
    assert "what their server calls their version" in (before.digest_note or "")
    path = server.folder / "train-000000.tar"
    size = path.stat().st_size
    content = bytearray(path.read_bytes())
    at = content.index(b"IDAT") + 12
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(0, 1_000_000_000))
    assert path.stat().st_size == size
    after = open_shards(server.url).train
    assert after.digest != before.digest
    assert [a == b for a, b in zip(contents(after), first, strict=True)].count(False) == 1


def test_a_shard_that_is_damaged_in_the_cache_is_fetched_again(server: Server) -> None:
    far = open_shards(server.url).train
    expected = contents(far)
    far.close()
    for path in far.paths[:2]:
        content = bytearray(path.read_bytes())
        content[content.index(b"IDAT") + 12] ^= 1
        path.write_bytes(content)
    assert contents(open_shards(server.url).train) == expected
