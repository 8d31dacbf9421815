"""Folders of images as people have them, read by their names."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
from made_images import random_png

from simsiam_zoo.data.packing.formats import open_original
from simsiam_zoo.errors import InputError


def put(folder: Path, *paths: str) -> None:
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(random_png(number))


def test_a_tree_of_images_labels_by_folder_as_torchvision_does(tmp_path):
    from torchvision.datasets import ImageFolder

    put(tmp_path, "train/bee/b.jpg", "train/bee/deep/a.JPEG", "train/Ant/1.png", "train/cat/x.webp")
    put(tmp_path, "val/cat/y.png", "train/.hidden/z.png", "train/bee/.z.png")
    (tmp_path / "train/bee/notes.txt").write_text("a text")
    original = open_original(tmp_path)
    # torchvision would take hidden folders and files for a class and for images
    theirs = [
        (str(Path(path).relative_to(tmp_path / "train")), label - 1)
        for path, label in ImageFolder(str(tmp_path / "train")).samples
        if "/." not in path
    ]
    train = original.splits["train"]
    ours = [(train.name(i), int(train.labels[i])) for i in range(len(train))]
    assert sorted(ours) == sorted(theirs)
    assert original.classes == ("Ant", "bee", "cat")
    assert original.splits["val"].labels.tolist() == [2]


def test_a_class_whose_folder_cannot_be_read_is_not_left_out(tmp_path, monkeypatch):
    put(tmp_path, "a/0.png", "b/1.png")
    listed = os.scandir

    def scandir(path):  # root may read everything
        if os.path.basename(path) == "a":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"/a cannot be read: Permission denied"):
        open_original(tmp_path)


def test_flat_and_unlabelled_images(tmp_path):
    put(tmp_path, "a.jpg", "b.png")
    (tmp_path / "c.txt").write_text("a text")
    flat = open_original(tmp_path)
    assert flat.splits["train"].labels.tolist() == [-1, -1]
    assert flat.classes is None
    put(tmp_path, "more/c.jpg")
    with pytest.raises(InputError, match=r"2 images beside 1 folder of(.|\n)*--no-labels"):
        open_original(tmp_path)
    assert open_original(tmp_path, labels=False).splits["train"].labels.tolist() == [-1] * 3


def test_files_that_are_none_and_names_made_to_harm(tmp_path):
    names = [
        "a\nb.jpg",
        "\x1b[31m.jpg",
        "..jpg",
        "-rf.jpg",
        "n" * 250 + ".jpg",
        "a.b.c.jpg",
        "__m__.jpg",
    ]
    put(tmp_path, *names)
    raw = os.path.join(os.fsencode(tmp_path), b"\xff\xfe.jpg")
    Path(os.fsdecode(raw)).write_bytes(random_png(9))
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "linked.jpg").symlink_to(tmp_path / "-rf.jpg")
    (tmp_path / "loop").symlink_to(tmp_path)
    split = open_original(tmp_path, labels=False).splits["train"]
    keys = [split.key(i) for i in range(len(split))]
    assert len(split) == len(names) + 1  # without "..jpg"; with the undecodable name and the link
    assert len(set(keys)) == len(keys)
    assert all(len(key) < 80 and key.replace("-", "").replace("_", "").isalnum() for key in keys)
    assert all(split.name(i).isprintable() for i in range(len(split)))


def test_a_class_that_training_lacks_and_a_folder_without_images_are_refused(tmp_path):
    put(tmp_path, "train/a/0.png", "val/b/1.png")
    with pytest.raises(InputError, match="has the class b, which train has not"):
        open_original(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        open_original(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images; looked for"):
        open_original(tmp_path / "empty")


def test_checksums_of_images_are_those_of_zlib(tmp_path):
    """Beside: what the shards of such a set say of each image."""
    from simsiam_zoo.data.index import load_index
    from simsiam_zoo.data.packing.job import PackOptions, pack_original
    from simsiam_zoo.data.sources import open_shards

    put(tmp_path / "in", "a.png", "b.png")
    pack_original(open_original(tmp_path / "in"), tmp_path / "out", PackOptions())
    shards = open_shards(str(tmp_path / "out")).train
    index = load_index(tmp_path / "out" / "train-000000.index.safetensors", shards.shards[0].bytes)
    assert index.image_checks.tolist() == [zlib.crc32(shards.read(i).image) for i in range(2)]


def test_what_a_file_is_called_does_not_matter(tmp_path):
    put(tmp_path, "a/0.jfif", "a/1.JPE", "b/2.pjpeg", "b/3")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "4.gif").write_bytes(b"GIF89a")
    original = open_original(tmp_path)
    assert original.splits["train"].labels.tolist() == [0, 0, 1, 1]
    other, empty = sorted(original.notes, reverse=True)
    assert empty == "no class: the folder c, in which no image can be packed"
    assert other == "not packed: 1 image other than JPEG, PNG or WebP; the first in c"


def test_splits_in_other_spellings_are_found_and_doubtful_ones_asked_about(tmp_path):
    put(tmp_path / "spelled", "Train/cat/0.png", "Train/dog/1.png", "Test/cat/2.png")
    original = open_original(tmp_path / "spelled")
    assert original.classes == ("cat", "dog")
    assert {name: len(split) for name, split in original.splits.items()} == {"train": 2, "val": 1}
    put(tmp_path / "above", "all/train/cat/0.png", "all/val/cat/1.png")
    put(tmp_path / "two", "train/cat/0.png", "Training/cat/1.png")
    put(tmp_path / "test", "cat/0.png", "test/1.png")
    put(tmp_path / "toys", "car/0.png", "train/1.png")
    put(tmp_path / "coco", "train2017/0.png", "val2017/1.png")
    for folder, words in {
        "above": r"Pack that folder: .*/above/all\.",
        "two": "it is not clear what to train on",
        "test": "it is not clear what to train on",
        "coco": "train2017, val2017: they look like splits",
        "toys": "beside car: it is not clear whether it is a split or a class",
    }.items():
        with pytest.raises(InputError, match=words):
            open_original(tmp_path / folder)
    put(tmp_path / "kinds", "test-tube/0.png", "toy-train/1.png", "cup/2.png")
    assert len(open_original(tmp_path / "kinds").classes or ()) == 3
    put(tmp_path / "flat", "train/cat/0.png", "val/1.png", "2.png")
    notes = " ".join(open_original(tmp_path / "flat").notes)
    assert "1 image in no folders of classes" in notes
    assert "not packed: 1 image beside the folder train" in notes
    put(tmp_path / "deep", "DCIM/day 1/ant/0.png", "DCIM/day 1/bee/1.png")
    (note,) = open_original(tmp_path / "deep").notes
    assert note.startswith("one class alone, DCIM: if the folders in it are the classes, day 1 say")
    original = open_original(tmp_path / "deep" / "DCIM" / "day 1")
    assert (original.classes, original.notes) == (("ant", "bee"), ())
