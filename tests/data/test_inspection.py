"""What `inspect` finds, against shards whose content is known."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from made_images import encode, random_png

from simsiam_zoo.catalog import create_component
from simsiam_zoo.data.inspection import (
    class_order,
    contact_sheet,
    data_notes,
    inspect_shards,
    order_warning,
)
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.data.sources import open_shards


def packed(folder: Path, images: list[bytes], labels: list[int], shard_size: int) -> ShardSet:
    folder.mkdir()
    samples = [
        PackedSample(f"{i:03d}", image, "png", label)
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    pack_dataset(folder, {"train": samples}, None, shard_size)
    return open_shards(str(folder)).train


def test_counts_sizes_formats_and_damage_are_found(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    images = [random_png(0), encode(pixels, "JPEG"), encode(pixels, "WEBP"), b"text", random_png(1)]
    shards = packed(tmp_path / "s", images, [0, 1, 1, -1, 0], shard_size=2)
    found = inspect_shards(shards, None, jobs=1)
    assert (found["shards"], found["samples"], found["labelled"]) == (3, 5, 4)
    assert found["labels"] == {"0": 2, "1": 2}
    assert found["formats"] == {"png": 2, "jpg": 1, "webp": 1}
    assert found["sizes"] == {"12 x 12": 2, "30 x 20": 2}
    assert found["width"] == {"min": 12, "median": 21, "max": 30}
    assert [entry["sample"] for entry in found["damaged"]] == [f"{shards.paths[1]}: 003"]
    assert inspect_shards(shards, None, jobs=2) == found
    assert inspect_shards(shards, 2, jobs=1)["looked_at"] == 2


def test_a_bit_that_changed_since_is_found_where_decoding_finds_nothing(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    shards = packed(tmp_path / "s", [encode(pixels, "JPEG"), random_png(0)], [0, 1], 2)
    shards.close()
    path = shards.paths[0]
    content, time = bytearray(path.read_bytes()), path.stat().st_mtime_ns
    content[content.index(b"\xff\xda") + 100] ^= 1  # it still decodes, to other pixels
    path.write_bytes(content)
    os.utime(path, ns=(time, time))  # a disk that errs changes no time
    found = inspect_shards(open_shards(str(path)).train, None, jobs=1)
    assert [entry["sample"] for entry in found["damaged"]] == [f"{path}: 000", str(path)]
    assert "sha256 differs" in found["damaged"][1]["problem"]
    assert "checksum" in found["damaged"][0]["problem"]


def test_class_ordered_shards_are_told_from_shuffled_ones(tmp_path):
    generator = np.random.default_rng(0)
    in_order = np.repeat(np.arange(10), 30)
    cases = {
        "one class each": (in_order, 30, True),
        "across borders": (in_order, 25, True),
        "shuffled": (generator.permutation(in_order), 30, False),
        "shuffled, small shards": (generator.permutation(in_order), 3, False),
        "one class in all": (np.zeros(300, int), 30, False),
    }
    for name, (labels, size, ordered) in cases.items():
        order = class_order(np.split(labels, range(size, 300, size)))
        assert order is not None, name
        assert (order.problem is not None) == ordered, name
    exact = class_order(np.split(generator.permutation(in_order), 10))
    assert exact is not None
    draws = [len(np.unique(generator.choice(10, 30))) for _ in range(4000)]
    assert exact.expected == pytest.approx(np.mean(draws), abs=0.05)
    assert class_order([np.full(9, -1), np.full(9, -1)]) is None
    assert class_order([in_order]) is None


def test_a_reader_warns_of_class_order_unless_the_window_holds_all(tmp_path):
    labels = np.repeat(np.arange(5), 6).tolist()
    images = [random_png(i, size=2) for i in range(30)]
    ordered = packed(tmp_path / "o", images, labels, shard_size=6)
    warning = order_warning(ordered, window=4)
    assert warning is not None
    assert "one holds 1.0 classes where" in warning
    assert order_warning(ordered, window=5) is None
    mixed = packed(tmp_path / "m", images, labels[::5] * 5, shard_size=6)
    assert order_warning(mixed, window=1) is None


def test_the_sheet_shows_the_views_that_training_draws(tmp_path):
    from simsiam_zoo.data.loader import TrainLoader

    shards = packed(tmp_path / "s", [random_png(i, size=40) for i in range(4)], [0, 1, 2, -1], 2)
    augmentation = create_component("augmentation", "cifar",
        min_scale=0.2, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, jitter_p=0.8,
        gray_p=0.2, flip_p=0.5,
    )  # fmt: skip
    sheet = np.asarray(contact_sheet(shards, augmentation, 96, seed=3, rows=4, epochs=2))
    loader = TrainLoader(
        shards, SampleOrder(shards.counts, 3, 4), augmentation, 96, seed=3, epochs=2
    )
    lefts = [100, 200]
    for batch, shift in zip(loader, (0, 200), strict=True):
        for view, left in zip(batch.views, lefts, strict=True):
            for pixels, id in zip(view.permute(0, 2, 3, 1).numpy(), batch.ids, strict=True):
                top = int(id) * 100
                cell = sheet[top : top + 96, left + shift : left + shift + 96]
                assert (cell == pixels).all()


@pytest.mark.parametrize(
    ("shard", "image", "told"),
    [
        ("n0{}.tar", "n0{}_{}.JPEG", True),
        ("0{}.tar", "0{}{}.png", False),
        ("{}.tar", "x.png", False),
    ],
)
def test_tars_that_are_classes_are_told(tmp_path: Path, shard: str, image: str, told: bool) -> None:
    """ImageNet's are called as the images in them; other makers number shards and images."""
    for number in range(3):
        with tarfile.open(tmp_path / shard.format(number), "w") as tar:
            info = tarfile.TarInfo(image.format(number, 7))
            info.size = len(file := random_png(number))
            tar.addfile(info, io.BytesIO(file))
    notes = data_notes(open_shards(str(tmp_path)))
    assert any("(n00.tar holds n00_7): where that is their class" in n for n in notes) == told
