"""No image and no label goes missing unsaid: names, endings, splits and labels of other makers."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from made_images import encode, random_png

from simsiam_zoo.data.index import Findings
from simsiam_zoo.data.manifest import by_purpose, read_manifest
from simsiam_zoo.data.scan import read_label, scan
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.data.stated import index_folder
from simsiam_zoo.data.stream import read_stream
from simsiam_zoo.errors import DataError, InputError

PNG = random_png(0)
JPEG = encode(np.zeros((8, 8, 3), np.uint8), "JPEG")
APPLE = bytes.fromhex("0005160700020000") + b"Mac OS X" + bytes(160)


def tar_of(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def read(path: Path) -> dict[str, int]:
    """Label by key, as an index gives it; a stream gives the same images."""
    shards = open_shards(str(path)).train
    samples = [shards.read(i) for i in range(len(shards))]
    streamed = [(one.name.rpartition(": ")[2], one.image) for one in read_stream(str(path))]
    assert streamed == [(one.key, bytes(one.image)) for one in samples]
    return {one.key: one.label for one in samples}


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        # webdataset's own: what follows the first dot names the member
        (["a.input.jpg", "a.cls", "b.input.jpg", "b.cls"], {"a": 7, "b": 7}),
        (["a.jpg", "a.seg.png", "a.cls"], {"a": 7}),
        (["a.left.jpg", "a.right.jpg"], {"a": -1}),
        # endings
        (["a.jfif", "a.cls", "b.JPE", "c.pjpeg", "d.image"], {"a": 7, "b": -1, "c": -1, "d": -1}),
        # what macOS lays beside
        (["./._n.jpg", "./n.jpg", "./._n.cls", "./n.cls", "__MACOSX/._x.jpg"], {"./n": 7}),
    ],
)  # fmt: skip
def test_every_image_is_found_whatever_it_is_called(members, expected, tmp_path):
    def content(name: str) -> bytes:
        return APPLE if "._" in name else b"7" if name.endswith(".cls") else JPEG

    path = tar_of(tmp_path / "a.tar", [(name, content(name)) for name in members])
    assert read(path) == expected
    assert not scan(path).findings.scattered


def test_what_is_passed_over_is_counted_and_said(tmp_path):
    members = ["a.jpg", "a.cls", "a.seg.png", "b.gif", "c.txt", ".hidden.jpg", "noending"]
    contents = [JPEG, b"x\x01y", JPEG, b"GIF89a", b"text", JPEG, JPEG]
    path = tar_of(tmp_path / "a.tar", zip(members, contents, strict=True))
    findings = scan(path).findings
    assert (findings.passed_over, findings.without_image, findings.unread_labels) == (4, 2, 1)
    notes = open_shards(str(path)).notes
    assert notes[0].startswith("4 images in 1 shards were passed over")
    assert any("a: its label is no class's name" in line for line in notes)
    streamed = Findings()
    assert len(list(read_stream(str(path), streamed))) == 1
    assert streamed.passed_over == 4


@pytest.mark.parametrize("padding", [0, 1, 20])
def test_tars_one_after_the_other_are_read_to_the_end(padding, tmp_path):
    parts = [tar_of(tmp_path / f"{i}.part", [(f"{i}.png", random_png(i))]) for i in (0, 1)]
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(512 * padding).join(part.read_bytes() for part in parts))
    if padding > 2:
        with pytest.raises(DataError, match="only zeros"):
            read(path)
        with pytest.raises(DataError, match="only zeros"):
            list(read_stream(str(path)))
    else:
        assert read(path) == {"0": -1, "1": -1}


def test_a_download_that_filled_half_of_its_file_is_damage(tmp_path):
    path = tar_of(tmp_path / "a.tar", [(f"{i}.png", random_png(i, 64)) for i in range(20)])
    content = path.read_bytes()
    half = len(content) // 2 // 512 * 512
    header = content.rindex(b"ustar", 0, half) - 257
    path.write_bytes(content[:header] + bytes(len(content) - header))
    for reader in (read, lambda path: list(read_stream(str(path)))):
        with pytest.raises(DataError, match=r"only zeros .* members are missing"):
            reader(path)


def test_what_is_no_tar_is_called_so(tmp_path):
    for content in (b"name = 'toml'\n", b"x" * 2048):
        path = tmp_path / "x.toml"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.toml is no tar archive"):
            open_shards(str(path))


@pytest.mark.parametrize(
    ("content", "label"),
    [
        (b"3", 3), (b" 3\n", 3), (b"\xef\xbb\xbf3", 3), (b"3.0", 3), (b'"3"', 3), (b"[3]", 3),
        ("3".encode("utf-16"), 3), (b"cat", "cat"), (b'"a cat"\r\n', "a cat"), (b"-1", None),
        (b"", None), ("\u0663".encode(), "\u0663"), (b"12_3", "12_3"),
    ],
)  # fmt: skip
def test_labels_are_read_in_every_spelling(content, label):
    assert read_label(content) == label
    if content and not content.startswith(b"\xff"):
        assert read_label(json.dumps({"label": label}).encode(), in_json=True) == label


def test_names_of_classes_are_taken_alike_in_training_and_in_test(tmp_path):
    def members(names: list[str]) -> list[tuple[str, bytes]]:
        return [
            m for i, n in enumerate(names) for m in ((f"{i}.png", PNG), (f"{i}.cls", n.encode()))
        ]

    tar_of(tmp_path / "train-0.tar", members(["dog", "cat", "eel"]))
    tar_of(tmp_path / "val-0.tar", members(["eel", "cat"]))
    for _ in range(2):  # scanned, and then from the files of `index`
        data = open_shards(str(tmp_path))
        assert data.classes == ("cat", "dog", "eel")
        assert data.train.labels().tolist() == [1, 0, 2]
        assert data.test is not None
        assert data.test.labels().tolist() == [2, 0]
        assert data.test.read(0).label == 2
        index_folder([tmp_path / "train-0.tar", tmp_path / "val-0.tar"])


def test_names_among_numbers_are_no_labels_and_it_is_said(tmp_path):
    path = tar_of(
        tmp_path / "a.tar", [("0.png", PNG), ("0.cls", b"4"), ("1.png", PNG), ("1.cls", b"?")]
    )
    data = open_shards(str(path))
    assert data.train.labels().tolist() == [4, -1]
    assert any("1 labels are names (one is '?') and 1 numbers" in note for note in data.notes)


def test_splits_come_from_what_a_file_states_or_from_the_names(tmp_path):
    names = ["imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"]
    for name in names:
        tar_of(tmp_path / name, [("0.png", PNG)])
    data = open_shards(str(tmp_path))
    assert [path.name for path in data.train.paths] == names[:1]
    assert data.test is not None
    assert [path.name for path in data.test.paths] == names[1:]
    stated = {
        name: {"filenames": [tar], "shard_lengths": [1]}
        for name, tar in zip(("validation", "train"), names, strict=True)
    }
    (tmp_path / "_info.json").write_text(json.dumps({"splits": stated}))
    data = open_shards(str(tmp_path))  # what is stated counts, even where names say otherwise
    assert [path.name for path in data.train.paths] == names[1:]


def test_shards_that_are_read_for_nothing_are_named_and_doubtful_ones_asked_about():
    assert by_purpose(["train-0", "val-0", "test-0", "extra"], {}) == (
        ["train-0"], ["val-0"], ["test-0", "extra"],
    )  # fmt: skip
    assert by_purpose(["a", "b"], {}) == (["a", "b"], [], [])
    with pytest.raises(InputError, match="named for training and for testing"):
        by_purpose(["train-of-val-0"], {})


def test_every_shard_of_a_folder_is_indexed_and_those_that_are_gone_forgotten(tmp_path):
    from simsiam_zoo.data.sources import all_shards

    names = ["test-0.tar", "train-0.tar", "unlabeled-0.tar", "val (1).tar"]
    for name in names:
        tar_of(tmp_path / name, [("0.png", PNG)])
    assert [path.name for path in all_shards(str(tmp_path))] == names
    index_folder(all_shards(str(tmp_path)))
    stated = read_manifest(tmp_path) or {}
    assert {n: [s.name for s in split.shards] for n, split in stated.items()} == {
        "test": names[:1], "train": names[1:2], "other": names[2:3], "val": names[3:],
    }  # fmt: skip
    data = open_shards(str(tmp_path))
    assert (len(data.train), data.test and len(data.test)) == (1, 1)
    assert "2 shards" in data.notes[0]
    (tmp_path / "unlabeled-0.tar").unlink()
    with pytest.raises(DataError, match="lacks 1 of the 4 shards"):
        open_shards(str(tmp_path))
    index_folder(all_shards(str(tmp_path)))
    assert "other" not in (read_manifest(tmp_path) or {})
    assert len(open_shards(str(tmp_path)).train) == 1
