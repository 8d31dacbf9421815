"""Indexes of shards that were not packed here."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zlib
from pathlib import Path

import pytest
from made_images import random_png

from simsiam_zoo.data.index import load_index
from simsiam_zoo.data.manifest import TIMM_INFO, StatedShard, index_path, read_manifest, stated_by
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.data.stated import index_folder
from simsiam_zoo.errors import DataError, InputError


@pytest.fixture
def foreign(tmp_path: Path, write_tar) -> list[Path]:
    first = {f"{i}.png": random_png(i) for i in range(3)} | {"0.cls": b"1"}
    second = {"x.jpg": random_png(3), "x.json": b'{"label": 4}', "y.txt": b"no image"}
    return [write_tar(tmp_path / "s" / "a.tar", first), write_tar(tmp_path / "s" / "b.tar", second)]


def test_counts_and_indexes_are_written_beside_and_read_from_there(foreign, cache, monkeypatch):
    scanned = index_folder(foreign)
    assert [one.info.samples for one in scanned] == [3, 1]
    assert [one.labelled for one in scanned] == [1, 1]
    assert (scanned[0].findings.scattered, scanned[1].findings.without_image) == (1, 1)
    monkeypatch.setattr("simsiam_zoo.data.stated.scan", None)  # nothing is left to be scanned
    shards = open_shards(str(foreign[0].parent)).train
    assert shards.counts == (3, 1)
    assert shards.labels().tolist() == [1, -1, -1, 4]
    assert not cache.exists()
    assert shards.shards[0].sha256 is None


def test_checksums_are_stored_and_notice_a_changed_bit_later(foreign):
    index_folder(foreign, checksums=True, jobs=2)
    index = load_index(index_path(foreign[0]), foreign[0].stat().st_size)
    assert index.image_checks.tolist() == [zlib.crc32(random_png(i)) for i in range(3)]
    before = (foreign[0].parent / "manifest.json").read_text()

    at = index_path(foreign[0])
    indexed = at.read_bytes()
    index_folder(foreign)  # a quick look does not forget them
    assert (foreign[0].parent / "manifest.json").read_text() == before
    assert at.read_bytes() == indexed
    content = bytearray(foreign[0].read_bytes())
    content[content.index(b"IDAT") + 9] ^= 1
    foreign[0].write_bytes(content)
    with pytest.raises(DataError, match=r"1 of 2 shards are refused; .*a\.tar is not what it was"):
        index_folder(foreign, checksums=True)
    assert (foreign[0].parent / "manifest.json").read_text() == before
    assert at.read_bytes() == indexed  # what would tell readers of the damage


def test_a_folder_that_was_not_copied_whole_is_refused(foreign):
    index_folder(foreign)
    foreign[1].unlink()
    with pytest.raises(DataError, match=r"lacks 1 of the 2 shards .* first is b\.tar"):
        open_shards(str(foreign[1].parent))
    assert open_shards(str(foreign[0].parent / "*.tar")).train.counts == (3,)


def test_duplicates_are_refused_with_their_number_and_nothing_is_counted(foreign):
    with tarfile.open(foreign[1], "a") as tar:
        for name in ("x.jpg", "x.json"):
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
    with pytest.raises(DataError, match=r"1 of 2 shards.*2 members have a name that was there"):
        index_folder(foreign)
    assert not (foreign[0].parent / "manifest.json").exists()


def test_another_folder_takes_the_files_and_a_strangers_manifest_is_kept(foreign, tmp_path):
    folder = foreign[0].parent
    (folder / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(InputError, match=r"another program's\n  Name a folder with --out"):
        index_folder(foreign)
    assert (folder / "manifest.json").read_text() == '{"name": "an app"}'
    index_folder(foreign, tmp_path / "out")
    counts = read_manifest(tmp_path / "out")
    assert counts is not None
    assert [(s.name, s.samples) for s in counts["train"].shards] == [("a.tar", 3), ("b.tar", 1)]
    with pytest.raises(InputError, match="cannot be written"):
        index_folder(foreign, Path("/proc/none"))


def test_indexing_some_shards_keeps_what_is_known_of_others(foreign):
    index_folder(foreign[:1])
    index_folder(foreign[1:])
    assert [s.name for s in (read_manifest(foreign[0].parent) or {})["train"].shards] == [
        "a.tar",
        "b.tar",
    ]


def read_info(folder: Path) -> dict[str, StatedShard]:
    """What `_info.json` states, whatever the manifest does."""
    only_info = {TIMM_INFO: (folder / TIMM_INFO).read_bytes()}
    return stated_by(only_info.get, str(folder))


def test_counts_of_timm_and_of_webdataset_are_read_and_compared(foreign):
    folder = foreign[0].parent
    timm = {"train": {"filenames": ["a.tar", "b.tar"], "shard_lengths": [3, 2]}}
    (folder / "_info.json").write_text(json.dumps({"splits": timm}))
    counted = {name: (one.samples, one.split) for name, one in read_info(folder).items()}
    assert counted == {"a.tar": (3, "train"), "b.tar": (2, "train")}
    assert [one.info.samples for one in index_folder(foreign)] == [3, 1]  # its own count holds
    wids = [{"url": "https://host/a.tar", "nsamples": 3}]
    (folder / "_info.json").write_text(json.dumps({"__kind__": "x", "shardlist": wids}))
    assert {name: one.samples for name, one in read_info(folder).items()} == {"a.tar": 3}


@pytest.mark.parametrize(
    "text",
    [
        '{"splits": {"train": {"filenames": ["a.tar"], "shard_lengths": [-1]}}}',
        '{"splits": {"train": {"filenames": ["a.tar"], "shard_lengths": [1, 2]}}}',
        '{"splits": {"train": {"filenames": ["a.tar"], "shard_lengths": ["1"]}}}',
        '{"splits": [1]}',
        '{"shardlist": [{"url": "a.tar", "nsamples": true}]}',
        '{"shardlist": 3}',
        "[" * 100_000,
    ],
)
def test_a_hostile_info_is_damage(tmp_path, text):
    (tmp_path / "_info.json").write_text(text)
    with pytest.raises(DataError, match=r"_info\.json"):
        read_info(tmp_path)


@pytest.mark.parametrize("name", ["x.wds", "x\\y.tar", os.fsdecode(b"x\xff.tar")])
def test_a_name_that_no_manifest_can_hold_is_refused_before_the_shard_is_read(
    name, tmp_path, write_tar
):
    path = write_tar(tmp_path / name, {"a.png": random_png(0)})
    with pytest.raises(InputError, match=r"is no shard's name\n  Rename it"):
        index_folder([path])
    assert len(open_shards(str(path)).train) == 1
