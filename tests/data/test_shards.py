from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from made_images import encode, random_png
from PIL import Image

from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.data.shards import MAX_OPEN_SHARDS, ShardSet
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.errors import DataError, InputError

CLASSES = ("ant", "bee", "cat")


def packed_samples(count: int, first: int = 0) -> list[PackedSample]:
    return [
        PackedSample(f"k{i:03d}", random_png(i), "png", i % 3) for i in range(first, first + count)
    ]


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    folder = tmp_path / "packed"
    folder.mkdir()
    pack_dataset(
        folder,
        {"train": packed_samples(10), "val": packed_samples(4, first=10)},
        CLASSES,
        shard_size=4,
    )
    return folder


def contents(shards: ShardSet) -> list[tuple[str, bytes, int]]:
    samples = [shards.read(i) for i in range(len(shards))]
    return [(s.key, bytes(s.image), s.label) for s in samples]


def test_packed_shards_read_back_what_was_packed(packed):
    data = open_shards(str(packed))
    expected = [(s.key, s.image, s.label) for s in packed_samples(14)]
    assert data.train.counts == (4, 4, 2)
    assert contents(data.train) == expected[:10]
    assert data.test is not None
    assert contents(data.test) == expected[10:]
    assert data.train.labels().tolist() == [label for *_, label in expected[:10]]
    assert data.classes == CLASSES
    assert data.train.name(5) == f"{packed}/train-000001.tar: k005"


def test_plain_webdataset_reads_packed_shards(packed):
    urls = f"{packed}/train-{{000000..000002}}.tar"
    read = [
        (s["__key__"], s["png"], int(s["cls"]))
        for s in webdataset.WebDataset(urls, shardshuffle=False)
    ]
    assert read == [(s.key, s.image, s.label) for s in packed_samples(10)]


def test_timm_reads_packed_shards(packed):
    from timm.data import create_dataset

    dataset = create_dataset("wds/", root=str(packed), split="train", batch_size=1)
    pixels = {np.asarray(image).tobytes(): label for image, label in dataset}
    expected = {
        np.asarray(Image.open(io.BytesIO(s.image))).tobytes(): s.label for s in packed_samples(10)
    }
    assert len(dataset) == 10
    assert pixels == expected


def test_the_same_samples_pack_to_the_same_bytes(packed, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    splits = {"train": packed_samples(10), "val": packed_samples(4, first=10)}
    pack_dataset(again, splits, CLASSES, shard_size=4)
    names = sorted(path.name for path in packed.iterdir())
    assert len(names) == 2 * 4 + 2  # a tar and an index each, two manifests
    assert sorted(path.name for path in again.iterdir()) == names
    for name in names:
        assert (again / name).read_bytes() == (packed / name).read_bytes(), name


def test_foreign_shards_of_every_naming_are_read(tmp_path, write_tar):
    image = [random_png(i) for i in range(9)]
    write_tar(
        tmp_path / "a.tar",
        {
            "x/0001.PNG": image[0],
            "x/0001.cls": b"7\n",
            "x/0002.Jpeg": image[1],  # the extension is believed by nobody
            "x/0002.json": json.dumps({"label": 3}).encode(),
            "x/0003.webp": image[2],
            "x/0003.cls": b"seven",
            "x/0004.txt": b"no image here",
            "x.y/0005.png": image[3],
            "x.y/0005.json": b"[" * 100_000,
        },
    )
    write_tar(
        tmp_path / "b.tar", {"n01_44.JPEG": image[4], "n01_44.cls": b"1", "n01_45.jpg": image[5]}
    )
    write_tar(tmp_path / "c.tar", {"0.png": image[6], "1.png": image[7], "0.cls": b"5"})
    data = open_shards(str(tmp_path / "*.tar"))
    assert contents(data.train) == [
        ("x/0001", image[0], 7),
        ("x/0002", image[1], 3),
        ("x/0003", image[2], -1),
        ("x.y/0005", image[3], -1),
        ("n01_44", image[4], 1),
        ("n01_45", image[5], -1),
        ("0", image[6], 5),
        ("1", image[7], -1),
    ]
    assert data.test is None
    assert data.classes is None


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_format_are_read_as_tarfile_reads_them(tmp_path, form):
    long = "f" * 90 + "/" + "g" * (8 if form == tarfile.USTAR_FORMAT else 150)
    names = ["plain.png", "größe.png", f"{long}.png"]
    path = tmp_path / "train-0.tar"
    with tarfile.open(path, "w", format=form) as tar:
        folder = tarfile.TarInfo("folder/")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for i, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(random_png(i)), 1.5  # pax writes that as a record
            tar.addfile(member, io.BytesIO(random_png(i)))
    data = open_shards(str(path))
    keys = [name.removesuffix(".png") for name in names]
    assert contents(data.train) == [(key, random_png(i), -1) for i, key in enumerate(keys)]


def test_keys_and_extensions_split_as_webdataset_splits_them():
    from webdataset.tariterators import base_plus_ext

    from simsiam_zoo.data.scan import key_of

    for name in ("a.jpg", "a/b.left.JPG", "a.b/c.d.e", "a.b/c", "./a.png", "a", "x/y z.png"):
        ours, theirs = key_of(name.encode()), base_plus_ext(name)
        assert ours == (
            None if theirs[0] is None else (theirs[0].encode(), theirs[1].lower().encode())
        )


def test_the_digest_tells_content_from_location(packed, tmp_path, write_tar):
    moved = packed.rename(tmp_path / "moved")
    digest = open_shards(str(moved)).train.digest
    moved.rename(packed)
    assert open_shards(str(packed)).train.digest == digest
    first_two = open_shards(f"{packed}/train-{{000000,000001}}.tar").train
    assert first_two.digest != digest


def test_a_stated_checksum_is_compared_where_the_index_is_missing(packed):
    (packed / "train-000000.index.safetensors").unlink()
    path = packed / "train-000000.tar"
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 9] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train-000000\.tar is not the shard .* sha256 differs"):
        open_shards(str(packed))


def test_few_files_are_open_however_many_shards(tmp_path, write_tar):
    count = MAX_OPEN_SHARDS + 20
    for i in range(count):
        write_tar(tmp_path / f"{i:03d}.tar", {"0.png": random_png(i, size=2)})
    shards = open_shards(str(tmp_path)).train
    before = len(os.listdir("/dev/fd"))
    for _ in range(2):
        assert contents(shards) == [("0", random_png(i, size=2), -1) for i in range(count)]
    assert len(os.listdir("/dev/fd")) - before <= MAX_OPEN_SHARDS

    copy = pickle.loads(pickle.dumps(shards))  # as a worker gets it: with nothing open
    assert bytes(copy.read(7).image) == random_png(7, size=2)
    shards.close()
    copy.close()
    assert len(os.listdir("/dev/fd")) <= before


def test_folders_tars_globs_braces_and_the_home_folder_are_found(packed, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    sizes = {
        str(packed): (10, 4),
        "~/packed": (10, 4),
        f"{packed}/train-000001.tar": (4, None),
        f"{packed}/train-*1.tar": (4, None),
        f"{packed}/train-{{000000..000002}}.tar": (10, None),
        f"{packed}/{{train,val}}-000000.tar": (8, None),
    }
    for source, (train, test) in sizes.items():
        data = open_shards(source)
        assert (len(data.train), data.test and len(data.test)) == (train, test), source
    data = open_shards(f"{packed}/train-000000.tar", test=str(packed))
    assert len(data.train) == 4
    assert data.test is not None
    assert len(data.test) == 4

    bare = tmp_path / "bare"
    bare.mkdir()
    (packed / "train-000000.tar").rename(bare / "part0.tar")
    (packed / "train-000001.tar").rename(bare / "test-0.tar")
    data = open_shards(str(bare))
    assert (len(data.train), data.test and len(data.test)) == (4, 4)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("pipe:touch sentinel", "never run"),
        ("-", "never run"),
        (
            "https://user:secret@host/a.tar?token=secret",
            "https://...: user names and passwords",
        ),
        ("file:///etc/passwd", "the scheme 'file' is refused"),
        ("{tmp}/nowhere", "no data at"),
        ("{tmp}/empty", r"train-\*.tar and val-\*.tar"),
        ("{tmp}/a-{{0..99999999999}}-{{0..99999999999}}.tar", "more than 1,000,000"),
        ("{tmp}/a-{{0..2}}.tar", "3 of the 3 shards"),
        ("{tmp}/a-{{0..2.tar", "braces do not match"),
        ("{tmp}/noimage.tar", "holds no images"),
        ("{tmp}/fifo.tar", "no data at"),  # opening it would wait for ever
    ],
)
def test_what_cannot_be_read_says_why(source, words, tmp_path, write_tar, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "fifo.tar")
    write_tar(tmp_path / "noimage.tar", {"0.txt": b"text"})
    with pytest.raises(InputError, match=words) as caught:
        open_shards(source.format(tmp=tmp_path))
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "sentinel").exists()


def test_a_shard_that_does_not_fit_its_manifest_is_refused(packed):
    shard = packed / "train-000001.tar"
    shard.write_bytes(shard.read_bytes() + bytes(512))
    with pytest.raises(DataError, match=r"train-000001\.tar has \d+ bytes, its manifest states"):
        open_shards(str(packed))


def test_shards_copied_without_their_indexes_are_indexed(packed):
    for index in packed.glob("*.index.safetensors"):
        index.unlink()
    data = open_shards(str(packed))
    assert contents(data.train) == [(s.key, s.image, s.label) for s in packed_samples(10)]


def test_labels_beyond_the_classes_are_damage(tmp_path):
    pack_dataset(
        tmp_path,
        {"train": [PackedSample("0", encode(np.zeros((2, 2, 3), np.uint8)), "png", 3)]},
        CLASSES,
    )
    with pytest.raises(DataError, match="labels over its 3 classes"):
        open_shards(str(tmp_path)).train.labels()
