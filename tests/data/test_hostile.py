"""Shards, indexes and manifests made to harm. Each case is the real thing, crafted byte by byte."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from crafted import member, pax
from made_images import random_png
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from simsiam_zoo.data.index import load_index, printable
from simsiam_zoo.data.manifest import MANIFEST, read_manifest
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.data.scan import scan
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.errors import DataError, InputError, ZooError

pytestmark = pytest.mark.usefixtures("memory_stays_bounded")

PNG = random_png(0)
GIB = 1 << 30


GOOD = member(b"0.png", PNG)
END = bytes(1024)
BASE_256 = b"\x80" + (8 * GIB).to_bytes(11)
NEGATIVE = b"\xff" * 12

TARS = {
    "symbolic link": GOOD + member(b"1.png", kind=b"2", link=b"/etc/passwd") + END,
    "hard link": GOOD + member(b"1.png", kind=b"1", link=b"0.png") + END,
    "device": GOOD + member(b"1.png", kind=b"3") + END,
    "sparse file": GOOD + member(b"1.png", PNG, kind=b"S") + END,
    "unknown type": GOOD + member(b"1.png", PNG, kind=b"Z") + END,
    "plain octal": GOOD + member(b"1.png", size=BASE_256) + END,
    "octal number": GOOD + member(b"1.png", size=NEGATIVE) + END,
    "no plain octal": GOOD + member(b"1.png", size=b"-0000000777\0") + END,
    "content is cut off": GOOD + member(b"1.png", size=b"77777777777\0") + END,
    "overrides the 'size'": GOOD + pax(b"size", b"9") + member(b"1.png", PNG) + END,
    r"overrides the 'GNU.sparse.\\x1b": GOOD + pax(b"GNU.sparse.\x1b[2J", b"0") + GOOD + END,
    "refused: its extended header overrides": GOOD + pax(b"size", b"9", kind=b"g") + END,
    "extended header is damaged": GOOD + member(b"x", b"99999 path=a\n", b"x") + END,
    "name of 5000 bytes": GOOD + pax(b"path", b"a" * 4996 + b".png") + GOOD + END,
    "name of 4102 bytes": GOOD + member(b"L", b"a" * 4102 + b"\0", b"L") + GOOD + END,
    "extended header of": GOOD + member(b"x", bytes(1 << 17), b"x") + END,
    "wrong checksum": GOOD + member(b"1.png", PNG).replace(b"1.png", b"2.png", 1) + END,
    "cut off at offset": GOOD,
    "repeats 0.png": GOOD + member(b"1.png", PNG) + GOOD + END,
    "gzip": zlib.compress(GOOD + END, wbits=31),
}


@pytest.mark.parametrize("words", TARS)
def test_a_tar_that_no_packer_writes_is_refused(words, tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(TARS[words])
    with pytest.raises(ZooError, match=words) as caught:
        open_shards(str(path))
    assert str(path) in str(caught.value)
    if words != "gzip":
        assert isinstance(caught.value, DataError)
        assert f"offset {512 + -(-len(PNG) // 512) * 512}" in str(caught.value) or words.startswith(
            ("repeats", "name of")
        )


def test_the_crafting_above_makes_tars_that_tarfile_accepts(tmp_path):
    content = GOOD + pax(b"path", b"long.png") + member(b"1.png", PNG) + END
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert tar.getnames() == ["0.png", "long.png"]


def test_a_shard_cut_anywhere_is_damage_or_missing_nothing(tmp_path):
    whole = GOOD + member(b"0.cls", b"3") + member(b"1.png", PNG) + END
    path = tmp_path / "a.tar"
    for cut in range(0, len(whole) - 512, 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError):
            scan(path)


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("sentinel"),))


def test_nothing_in_a_shard_is_unpickled_or_used_as_a_path(tmp_path, write_tar, monkeypatch):
    monkeypatch.chdir(tmp_path)
    poison = pickle.dumps(Bomb())
    write_tar(
        tmp_path / "data" / "a.tar",
        {
            "../../escape.png": PNG,
            "../../escape.pyd": poison,
            "/etc/absolute.png": PNG,
            "/etc/absolute.pkl": poison,
            "ok.png": PNG,
            "ok.pth": poison,
            "ok.json": b'{"label": {"__class__": "x"}}',
            "bad\x1b[2J\n.png": PNG,
        },
    )
    files = sorted(tmp_path.rglob("*"))
    train = open_shards(str(tmp_path / "data")).train
    assert [train.read(i).label for i in range(4)] == [-1] * 4
    assert [train.read(i).key for i in range(3)] == ["../../escape", "/etc/absolute", "ok"]
    assert train.read(3).key == r"bad\x1b[2J\n"
    new = set(tmp_path.rglob("*")) - set(files)
    assert {path.relative_to(tmp_path).parts[0] for path in new} == {"user-cache"}


def test_names_are_shown_without_their_control_characters():
    assert printable(b"a\x1b]0;x\x07\xff\xe2\x80\xae") == r"a\x1b]0;x\x07\xff\u202e"
    assert printable("größe/1".encode()) == "größe/1"


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    pack_dataset(tmp_path, {"train": [PackedSample(str(i), PNG, "png", i) for i in range(3)]}, None)
    return tmp_path


def rewrite_index(packed: Path, about: bytes | None = None, **arrays: np.ndarray) -> Path:
    path = packed / "train-000000.index.safetensors"
    with safe_open(path, "numpy") as old:
        said = old.metadata()["about"].encode() if about is None else about
    save_file(load_file(path) | arrays, path, {"about": said.decode()})
    return path


ABOUT = b'{"tar_bytes": 77, "names": [], "findings": {}, "mtime_ns": null, "version": 3}'
SIZES = np.array([len(PNG)] * 3)
INDEXES = {
    "points outside": {"offsets": np.array([0, 512, 1 << 40])},
    "it points outside": {"offsets": np.array([0, 512, -512])},
    "points outside ": {"offsets": np.array([0, 512, 1000])},
    "outside": {"sizes": np.array([1, 1, 2**63 - 1])},
    "points": {"sizes": np.array([1, 1, -5])},
    "differ in length": {"sizes": SIZES[:2]},
    "keys are damaged": {"key_ends": np.array([1, 0, 3])},
    "labels are damaged": {"labels": np.array([0, 1, -7])},
    "another version": {"about": ABOUT.replace(b"3}", b"99}")},
    "bytes when it was indexed": {"about": ABOUT},
    "its images overlap": {"offsets": np.array([0, 0, 2048])},
    "images overlap": {"sizes": np.array([4096, len(PNG), len(PNG)])},
    "not of its type": {"labels": np.zeros(3, np.float64)},
}


@pytest.mark.parametrize("words", INDEXES)
def test_a_forged_index_is_refused(words, packed):
    path = rewrite_index(packed, **INDEXES[words])
    with pytest.raises(DataError, match=words.strip()):
        load_index(path, (packed / "train-000000.tar").stat().st_size)


def test_an_index_that_points_at_another_member_is_noticed(packed):
    train = open_shards(str(packed)).train
    train.read(1)
    label = 512 + -(-len(PNG) // 512) * 512  # of sample 0: another regular member
    third = int(load_file(packed / "train-000000.index.safetensors")["offsets"][2])
    rewrite_index(packed, offsets=np.array([0, label, third]))
    train.close()
    with pytest.raises(DataError, match=f"changed at offset {label}"):
        train.read(1)


def test_an_index_that_points_into_another_members_content_is_noticed(tmp_path):
    """The forger knows every checksum: what lies there must be a member's header all the same."""
    inner = member(b"9.png", PNG, kind=b"2") + member(b"8.png", PNG)
    image = PNG + bytes(-len(PNG) % 512) + inner
    pack_dataset(tmp_path, {"train": [PackedSample("0", image, "png", 0)]}, None)
    content = (tmp_path / "train-000000.tar").read_bytes()
    outside = 512 + len(image) - len(inner)  # offset of the link in the tar
    forged = [(outside, len(PNG)), (outside - 512, len(PNG)), (outside + len(inner) // 2, 99)]
    for offset, size in forged:
        check = zlib.crc32(content[offset : offset + 512])
        arrays = {"offsets": np.array([offset]), "sizes": np.array([size])}
        rewrite_index(tmp_path, **arrays, checks=np.array([check], np.uint32))
        with pytest.raises(DataError, match=f"changed at offset {offset}"):
            open_shards(str(tmp_path)).train.read(0)


def test_labels_that_no_classifier_could_have_are_refused(tmp_path, write_tar):
    write_tar(tmp_path / "a.tar", {"0.png": PNG, "0.cls": b"1000000000000"})
    with pytest.raises(DataError, match="labels over its 1048576 classes"):
        open_shards(str(tmp_path / "a.tar")).train.labels()


LABELS = {
    b"1" * 5000: "cls", b"-3": "cls", b"0.5": "cls", b"nan": "cls", bytes(2 << 20): "cls",
    b"[" * 100_000: "json", b'{"label": ' * 50_000: "json", b'{"label": [1, 2]}': "json",
    b'{"label": ' + b"9" * 5000 + b"}": "json", b'{"label": true}': "json", b"\xff": "json",
}  # fmt: skip


def test_a_label_that_is_no_number_is_no_label(tmp_path, write_tar):
    members = {}
    for i, (content, form) in enumerate(LABELS.items()):
        members |= {f"{i}.png": PNG, f"{i}.{form}": content}
    write_tar(tmp_path / "a.tar", members)
    labels = open_shards(str(tmp_path / "a.tar")).train.labels()
    assert labels.tolist() == [-1] * len(LABELS)


def test_a_member_too_large_for_memory_is_refused_unread(tmp_path):
    """300 MiB of nothing in one image, on a disk that stores no zeros; and 7 GiB that are not."""
    path = tmp_path / "a.tar"
    size = 300 << 20
    path.write_bytes(member(b"0.png", size=b"%011o\0" % size))
    with path.open("r+b") as file:
        file.truncate(512 + size)
        file.seek(0, 2)
        file.write(END)
    train = open_shards(str(path)).train
    with pytest.raises(DataError, match=f"an image of {size} bytes is refused"):
        train.read(0)


def test_counts_of_a_manifest_cannot_make_the_plan_wrap(packed):
    for counts in ((1 << 62, 1 << 62), (1 << 61,) * 8, (1 << 48, 1)):
        with pytest.raises(InputError, match="claim more than"):
            SampleOrder(counts, seed=0, batch=4)


def test_an_index_cannot_hide_a_pickle_nor_claim_memory(packed, monkeypatch):
    monkeypatch.chdir(packed)
    size = (packed / "train-000000.tar").stat().st_size
    path = packed / "train-000000.index.safetensors"
    good = path.read_bytes()
    end = 8 + int.from_bytes(good[:8], "little")
    header = json.loads(good[8:end])
    header["labels"] |= {"shape": [1 << 50], "data_offsets": [0, 1 << 53]}
    huge = json.dumps(header).encode()
    for content in (
        pickle.dumps(Bomb()),
        len(huge).to_bytes(8, "little") + huge + good[end:],
        (1 << 62).to_bytes(8, "little") + good[8:],
    ):
        path.write_bytes(content)
        with pytest.raises(DataError):
            load_index(path, size)
    assert not (packed / "sentinel").exists()


MANIFESTS = {
    "is no shard's name": ("train-000000.tar", "../train-000000.tar"),
    "no shard's name": ("train-000000.tar", "/etc/passwd"),
    "do not add up": ('"samples": 3,\n   "classes"', '"samples": 4,\n   "classes"'),
    "greater than or equal to 0": ('"bytes": ', '"bytes": -'),
    "of version 2": ('"version": 1', '"version": 2'),
    "should match pattern": ('"sha256": "', '"sha256": "xyz'),
    "is damaged": ('"shards"', '"chards"'),
    "json is damaged": ("{", "{" * 100_000),
    "json is": ("splits", "\udcff"),
    "valid tuple": ('"classes": null', '"classes": "abc"'),
}


@pytest.mark.parametrize("words", MANIFESTS)
def test_a_forged_manifest_is_refused(words, packed):
    path = packed / MANIFEST
    old, new = MANIFESTS[words]
    text = path.read_text()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=words):
        open_shards(str(packed))


def test_a_strangers_manifest_is_left_alone(packed):
    (packed / MANIFEST).write_text(json.dumps({"name": "an app", "version": 3}))
    assert read_manifest(packed) is None
    assert len(open_shards(str(packed)).train) == 3


MAGIC = {
    "compress": b"\x1f\x9d",
    "zstd": b"\x28\xb5\x2f\xfd",
    "lz4": b"\x04\x22\x4d\x18",
    "zip": b"PK\3\4",
}


@pytest.mark.parametrize("form", MAGIC)
def test_other_archives_are_named(form, tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(MAGIC[form] + bytes(2000))
    with pytest.raises(InputError, match=form):
        open_shards(str(path))


def test_compressed_tars_say_what_to_do(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w:xz"):
        pass
    with pytest.raises(InputError, match=r"xz.*\n.*Decompress"):
        open_shards(str(path))


def test_an_index_of_any_bytes_is_read_or_refused(packed):
    path, size = (
        packed / "train-000000.index.safetensors",
        (packed / "train-000000.tar").stat().st_size,
    )
    whole, draws = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(whole)
        for at in draws.integers(0, len(content), draws.integers(1, 6)).tolist():
            content[at] = draws.integers(256)
        path.write_bytes(content[: draws.integers(1, len(content) + 1)])
        with contextlib.suppress(DataError):  # any other error fails
            load_index(path, size)


@pytest.mark.parametrize(
    "change",
    [
        (b"[]", b"3"), (b"[]", b'["\\u001b"]'), (b"{}", b'{"passed_over": -1}'), (b"{}", b"[1]"),
        (b"null", b'"a"'), (b"{}", b"{" * 100_000), (b"77", b"-1"), (b"}", b""),
    ],
)  # fmt: skip
def test_what_an_index_says_of_its_scan_is_checked_too(change, packed):
    path = rewrite_index(packed, ABOUT.replace(*change))
    with pytest.raises(DataError, match="cannot be read"):
        load_index(path, (packed / "train-000000.tar").stat().st_size)
