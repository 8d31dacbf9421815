"""A part of the training images is held out: which ones, and that both parts are sets like any."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_runs import digits

from simsiam_zoo.data.decode import decode
from simsiam_zoo.data.packing.writer import pack_dataset
from simsiam_zoo.data.resident import Resident
from simsiam_zoo.data.shards import Dataset, ShardSet
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.data.validation import ShardSubset, hold_out
from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe import Recipe


def packed(folder: Path, labels: NDArray[np.int64], shard_size: int = 32) -> Dataset:
    """Digits with these labels, as data to train on."""
    folder.mkdir()
    samples = [
        replace(sample, label=label)
        for sample, label in zip(digits(len(labels)), labels.tolist(), strict=True)
    ]
    pack_dataset(folder, {"train": samples}, None, shard_size)
    return open_shards(str(folder))


def keys(shards: ShardSet) -> list[str]:
    return [shards.read(id).key for id in range(len(shards))]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.335, 0.9])
def test_each_class_gives_its_share_and_the_whole_is_right(tmp_path: Path, share: float) -> None:
    labels = np.random.default_rng(0).choice([0, 1, 2, -1], p=[0.5, 0.3, 0.15, 0.05], size=203)
    whole = packed(tmp_path / "data", labels)
    parts = hold_out(whole, share)
    assert parts.measured_on == "validation"
    assert parts.test is not None
    assert len(parts.test) == round(share * 203)
    for label in (0, 1, 2, -1):
        exact = share * (labels == label).sum()
        assert abs((parts.test.labels() == label).sum() - exact) <= 1
    # Together they are the whole, in its order, and nothing is in both.
    everything = keys(whole.train)
    train, test = keys(parts.train), keys(parts.test)
    assert sorted(train + test) == everything
    assert train == [key for key in everything if key not in set(test)]
    assert hold_out(open_shards(str(tmp_path / "data")), share).digest == parts.digest
    assert len({whole.digest, parts.digest, hold_out(whole, share / 2).digest}) == 3
    assert parts.train.digest != parts.test.digest


def test_a_subset_is_a_shard_set_like_any(tmp_path: Path) -> None:
    whole = packed(tmp_path / "data", np.arange(100) % 7).train
    chosen = np.array([0, 1, 31, 64, 65, 66, 95, 99])  # none of the second shard
    part = pickle.loads(pickle.dumps(ShardSubset(whole, chosen)))
    assert (len(part), part.counts, part.offsets.tolist()) == (8, (3, 0, 4, 1), [0, 3, 3, 7, 8])
    assert part.labels().tolist() == (chosen % 7).tolist()
    for id, of_whole in enumerate(chosen.tolist()):
        assert part.read(id) == whole.read(of_whole)
        assert part.name(id) == whole.name(of_whole)
    with pytest.raises(IndexError):
        part.read(8)
    images, _ = Resident(part, torch.device("cpu")).images(np.array([7, 3]))
    for image, id in zip(images, (99, 64), strict=True):
        pixels = image.expand(3, -1, -1).permute(1, 2, 0)
        assert np.array_equal(pixels, decode(whole.read(id).image))


@pytest.mark.parametrize(
    ("labels", "share", "problem"),
    [
        (np.arange(40) % 2, 0.01, "holds out none"),
        (np.arange(40) % 2, 0.99, "leaves none to train on"),
        (np.array([0] * 30 + [5]), 0.6, "leaves none of class 5 to train on"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    tmp_path: Path, labels: NDArray[np.int64], share: float, problem: str
) -> None:
    with pytest.raises(InputError, match=problem) as refused:
        hold_out(packed(tmp_path / "data", labels), share)
    assert refused.value.hint


def test_a_stream_has_no_validation_part() -> None:
    with pytest.raises(InputError, match=r"data\.validation, or read the shards exactly"):
        Recipe.make("digits", None, {"data.stream": True, "data.validation": 0.2})
    for share in (-0.1, 1.0):
        with pytest.raises(InputError, match=r"data\.validation is"):
            Recipe.make("digits", None, {"data.validation": share})
