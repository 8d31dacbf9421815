"""Packing whole data sets: the same bytes always, damage listed, interruptions survived."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from filelock import FileLock
from made_images import encode, random_png
from PIL import Image

from simsiam_zoo.data.manifest import PACKING
from simsiam_zoo.data.packing.formats import open_original
from simsiam_zoo.data.packing.job import DAMAGED, PackOptions, pack_original
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.errors import DataError, InputError, StoppedError
from simsiam_zoo.runtime.progress import Progress

SMALL = PackOptions(shard_samples=4)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """20 training images of 2 classes, 5 of the second kind to test."""
    source = tmp_path / "tree"
    for number in range(25):
        split, name = ("train", "ab"[number % 2]) if number < 20 else ("val", "b")
        path = source / split / name / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random_png(number))
    return source


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def packed(source: Path, out: Path, options: PackOptions = SMALL, **more) -> dict[str, bytes]:
    assert pack_original(open_original(source), out, options, **more) is not None
    assert not (out / PACKING).exists()
    return files(out)


def samples_in(out: Path, split: str) -> list[tuple[str, bytes, int]]:
    shards = getattr(open_shards(str(out)), split)
    read = [shards.read(i) for i in range(len(shards))]
    return [(s.key, bytes(s.image), s.label) for s in read]


def test_every_image_is_packed_once_with_its_label(tree, tmp_path):
    packed(tree, tmp_path / "out")
    got = {image: label for _, image, label in samples_in(tmp_path / "out", "train")}
    assert got == {random_png(n): n % 2 for n in range(20)}
    assert [label for *_, label in samples_in(tmp_path / "out", "test")] == [1] * 5
    assert open_shards(str(tmp_path / "out")).classes == ("a", "b")


def test_a_source_that_goes_away_is_no_damage_and_packing_goes_on_when_it_is_back(tree, tmp_path):
    whole = packed(tree, tmp_path / "whole")
    original, away = open_original(tree), tree.rename(tmp_path / "away")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        pack_original(original, tmp_path / "out", SMALL)
    assert (tmp_path / "out" / PACKING).is_dir()  # readers refuse it
    away.rename(tree)
    assert packed(tree, tmp_path / "out") == whole


def test_the_number_of_processes_and_the_place_change_no_byte(tree, tmp_path):
    one = packed(tree, tmp_path / "one", jobs=1)
    moved = tree.rename(tmp_path / "elsewhere")
    assert packed(moved, tmp_path / "two", jobs=2) == one
    assert packed(moved, tmp_path / "other", PackOptions(seed=1, shard_samples=4)) != one


def test_the_seed_shuffles_classes_across_shards_and_is_recorded(tree, tmp_path):
    packed(tree, tmp_path / "out", PackOptions(seed=5, shard_samples=4))
    train = open_shards(str(tmp_path / "out")).train
    labels = train.labels()
    assert any(len(set(labels[at : at + 4])) == 2 for at in train.offsets[:-1])
    document = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert document["packed"]["seed"] == 5
    assert document["packed"]["source"] == "image folder"
    assert str(tree) not in json.dumps(document)


def test_damaged_images_are_listed_and_left_out(tree, tmp_path):
    jpeg = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), "JPEG")
    damage = {
        "000.png": b"",
        "002.png": jpeg[: len(jpeg) // 2],
        "004.png": b"<html>not found</html>",
        "006.png": random_png(6)[:-20],
    }
    for name, content in damage.items():
        (tree / "train" / "a" / name).write_bytes(content)
    (tree / "train" / "a" / "008.png").write_bytes(jpeg)  # whole, under a wrong name
    result = pack_original(open_original(tree), tmp_path / "out", SMALL)
    assert result is not None
    assert result.damaged == 4
    listed = [json.loads(line) for line in (tmp_path / "out" / DAMAGED).open()]
    assert {entry["name"] for entry in listed} == {f"a/{name}" for name in damage}
    assert all(entry["split"] == "train" and entry["reason"] for entry in listed)
    got = samples_in(tmp_path / "out", "train")
    assert len(got) == 16
    assert not {image for _, image, _ in got} & set(damage.values())
    with tarfile.open(
        fileobj=io.BytesIO(
            b"".join(
                content
                for name, content in files(tmp_path / "out").items()
                if name.startswith("train") and name.endswith("tar")
            )
        ),
        ignore_zeros=True,
    ) as tar:
        assert [m.name for m in tar if "008" in m.name and m.name.endswith(".jpg")]

    for path in (tree / "train").rglob("*.png"):
        path.write_bytes(b"x")
    shutil.rmtree(tree / "val")
    with pytest.raises(DataError, match="none of the 20 images of train can be decoded"):
        packed(tree, tmp_path / "nothing")
    assert not list((tmp_path / "nothing").iterdir())  # nothing that could pass for a data set


def test_plain_webdataset_and_timm_read_what_was_packed(tree, tmp_path):
    from timm.data import create_dataset

    out = tmp_path / "out"
    packed(tree, out)
    urls = f"{out}/train-{{000000..000004}}.tar"
    read = {s["png"]: int(s["cls"]) for s in webdataset.WebDataset(urls, shardshuffle=False)}
    assert read == {random_png(n): n % 2 for n in range(20)}
    for split, count in (("train", 20), ("val", 5)):
        dataset = create_dataset("wds/", root=str(out), split=split, batch_size=1)
        assert len(dataset) == count
        pixels = {np.asarray(image).tobytes() for image, _ in dataset}
        numbers = range(20) if split == "train" else range(20, 25)
        assert pixels == {
            np.asarray(Image.open(io.BytesIO(random_png(n)))).tobytes() for n in numbers
        }


def test_large_images_are_shrunk_and_small_ones_keep_their_bytes(tmp_path):
    source = tmp_path / "flat"
    source.mkdir()
    gradient = np.linspace(0, 255, 300 * 400 * 3).reshape(300, 400, 3).astype(np.uint8)
    (source / "a.jpg").write_bytes(encode(gradient, "JPEG", quality=90))
    (source / "b.png").write_bytes(encode(gradient))
    (source / "c.webp").write_bytes(encode(gradient.transpose(1, 0, 2), "WEBP", lossless=True))
    (source / "d.jpg").write_bytes(encode(gradient[:100, :120], "JPEG"))
    packed(source, tmp_path / "out", PackOptions(resize_short=100))
    got = {key[-1]: image for key, image, _ in samples_in(tmp_path / "out", "train")}
    sizes = {
        key: (Image.open(io.BytesIO(b)).format, Image.open(io.BytesIO(b)).size)
        for key, b in got.items()
    }
    assert sizes == {
        "a": ("JPEG", (133, 100)),
        "b": ("PNG", (133, 100)),
        "c": ("JPEG", (100, 133)),
        "d": ("JPEG", (120, 100)),
    }
    assert got["d"] == (source / "d.jpg").read_bytes()
    small = np.asarray(Image.open(io.BytesIO(got["a"])), np.float64)
    true = np.asarray(Image.fromarray(gradient).resize((133, 100), Image.Resampling.BICUBIC))
    assert np.abs(small - true).mean() < 2
    document = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert document["packed"]["resize_short"] == 100


def test_a_limit_takes_a_random_part_of_each_split(tree, tmp_path):
    packed(tree, tmp_path / "part", PackOptions(shard_samples=4, limit=6))
    packed(tree, tmp_path / "all")
    part, whole = (samples_in(tmp_path / name, "train") for name in ("part", "all"))
    assert part == whole[:6]
    assert {label for *_, label in part} == {0, 1}
    assert len(samples_in(tmp_path / "part", "test")) == 5


def test_a_stopped_packing_goes_on_and_gives_the_same_bytes(tree, tmp_path):
    whole = packed(tree, tmp_path / "whole")
    out = tmp_path / "out"
    original = open_original(tree)

    class Interrupting(Progress):
        def advance(self, done: int, text: str = "") -> None:
            if done >= 8:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError):
        pack_original(original, out, SMALL, progress=Interrupting())
    first = out / "train-000000.tar"
    kept = first.stat().st_mtime_ns
    (out / "train-000001.tar").write_bytes(b"damaged since")
    (out / ".train-000002.tar.0123.tmp").write_bytes(b"half a shard")
    with pytest.raises(InputError, match="still being packed, or its packing was interrupted"):
        open_shards(str(out))
    with pytest.raises(InputError, match="interrupted packing left, which differ in seed"):
        pack_original(original, out, PackOptions(seed=9, shard_samples=4))
    assert packed(tree, out) == whole
    assert first.stat().st_mtime_ns == kept  # checked, not written again


def test_a_packed_folder_is_left_as_it_is(tree, tmp_path):
    out = tmp_path / "out"
    whole = packed(tree, out)
    again = pack_original(open_original(tree), out, SMALL)
    assert again is not None
    assert again.already
    assert files(out) == whole
    with pytest.raises(InputError, match="holds shards already, which differ in shard_samples"):
        pack_original(open_original(tree), out, PackOptions())
    (tree / "train" / "a" / "new.png").write_bytes(random_png(99))
    with pytest.raises(InputError, match="which differ in images, listing"):
        pack_original(open_original(tree), out, SMALL)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(InputError, match="no empty folder"):
        pack_original(open_original(tree), tmp_path / "other", SMALL)
    assert files(out) == whole


def test_two_packings_into_one_folder_are_refused(tree, tmp_path):
    out = tmp_path / "out"
    (out / PACKING).mkdir(parents=True)
    with FileLock(out / PACKING / "lock"), pytest.raises(InputError, match="another process"):
        pack_original(open_original(tree), out, SMALL)
    packed(tree, out)


def test_other_names_of_classes_are_another_packing(tmp_path):
    from dataclasses import replace

    for i in range(2):
        (tmp_path / "in" / "ab"[i]).mkdir(parents=True)
        (tmp_path / "in" / "ab"[i] / "0.png").write_bytes(random_png(i))
    original = open_original(tmp_path / "in")
    pack_original(original, tmp_path / "out", PackOptions())
    with pytest.raises(InputError, match="which differ in listing"):
        pack_original(replace(original, classes=("x", "y")), tmp_path / "out", PackOptions())


def test_a_split_without_a_good_image_leaves_no_data_set(tmp_path):
    for split, content in (("train", random_png(0)), ("val", b"no image")):
        (tmp_path / "in" / split / "a").mkdir(parents=True)
        (tmp_path / "in" / split / "a" / "0.png").write_bytes(content)
    with pytest.raises(DataError, match="none of the 1 images of val can be decoded"):
        pack_original(open_original(tmp_path / "in"), tmp_path / "out", PackOptions())
    assert not list((tmp_path / "out").iterdir())
