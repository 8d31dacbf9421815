"""Epochs of crops and flips through an encoder, for one rank and for several."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from simsiam_zoo.data.batches import TrainBatches
from simsiam_zoo.data.loader import normalize_pixels
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.evaluation import augmented
from simsiam_zoo.evaluation.augmented import AugmentedViews, crop_and_flip, part_of
from simsiam_zoo.evaluation.frozen_pass import FrozenNetwork, FrozenPass, Transform
from simsiam_zoo.evaluation.protocol import Features
from simsiam_zoo.runtime.device import Runtime

IMAGES, SIDE, BATCH = 26, 6, 12
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """26 images of noise in 3 shards; each one's label is its id."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    encoded = [
        cv2.imencode(".png", rng.integers(0, 256, (9, 11, 3), np.uint8))[1].tobytes()
        for _ in range(IMAGES)
    ]
    samples = [PackedSample(f"{i:02d}", image, "png", i) for i, image in enumerate(encoded)]
    pack_dataset(folder, {"train": samples}, tuple(map(str, range(IMAGES))), shard_size=10)
    return open_shards(str(folder)).train


def views(shards: ShardSet, **settings: object) -> AugmentedViews:
    """The pixels themselves are the features."""
    frozen = FrozenPass(
        [FrozenNetwork("pixels", nn.Flatten())],
        Transform(SIDE, 1.0, MEAN, STD),
        Runtime(torch.device("cpu"), "fp32", 1),
        Path("nowhere"),
    )
    return AugmentedViews(frozen, shards, **{"seed": 3, **settings})


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    monkeypatch.setattr(augmented.distributed, "rank", lambda: rank)
    monkeypatch.setattr(augmented.distributed, "world_size", lambda: world)


def room(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8)


def by_id(parts: list[Features]) -> dict[int, Tensor]:
    return {int(i): row for part in parts for i, row in zip(part.labels, part.x, strict=True)}


@pytest.mark.parametrize("at_once", [256, 4])
def test_an_epoch_is_the_training_plans_whole_batches_of_crops_and_flips(
    shards, monkeypatch, at_once
):
    """Loaded at once or in parts, which the loader writes over, a batch holds the same."""
    monkeypatch.setattr(augmented, "AT_ONCE", at_once)
    found = list(views(shards)(1, BATCH))
    assert [len(part.labels) for part in found] == [BATCH] * 2
    plan = SampleOrder(shards.counts, 3, BATCH)
    drawn = TrainBatches(shards, plan, crop_and_flip(), SIDE, 1, 3)
    for step, part in enumerate(found):
        ids = plan.ids(1, step)
        batch = drawn.make((1, step, ids), room)
        assert part.labels.tolist() == ids.tolist()
        assert torch.equal(part.x, normalize_pixels(batch.views[0], MEAN, STD).flatten(1))


@pytest.mark.parametrize("lanes", [1, 2])
def test_ranks_share_the_batches_that_one_would_have(shards, monkeypatch, lanes):
    monkeypatch.setattr(augmented, "AT_ONCE", 2)
    alone = list(views(shards, lanes=lanes)(0, BATCH))
    shares = []
    for rank in range(2):
        as_rank(monkeypatch, rank, 2)
        shares.append(list(views(shards, lanes=lanes)(0, BATCH)))
    for step, whole in enumerate(alone):
        both = by_id([share[step] for share in shares])
        assert len(both) == BATCH
        expected = by_id([whole])
        assert sorted(both) == sorted(expected)
        assert all(torch.equal(both[i], expected[i]) for i in both)


def test_epochs_differ_and_are_the_same_in_any_order_of_asking(shards):
    run = views(shards, epochs=2)
    first, second = list(run(0, BATCH)), list(run(1, BATCH))
    third = list(run(2, BATCH))  # beyond the horizon
    assert not torch.equal(first[0].x, second[0].x)
    for epoch, found in ((2, third), (1, second), (0, first)):
        again = list(views(shards)(epoch, BATCH))
        for a, b in zip(found, again, strict=True):
            assert torch.equal(a.x, b.x)
    half = views(shards)
    next(iter(half(0, BATCH)))  # let go in the middle
    assert torch.equal(next(iter(half(1, BATCH))).x, second[0].x)


def test_consecutive_epochs_are_one_pass_of_the_loader(shards, monkeypatch):
    begun = []
    batches = augmented.TrainLoader.batches
    monkeypatch.setattr(
        augmented.TrainLoader,
        "batches",
        lambda self, epoch=0, step=0: begun.append(epoch) or batches(self, epoch, step),
    )
    run = views(shards, epochs=3)
    for epoch in (0, 1, 2, 0, 1):
        list(run(epoch, BATCH))
    assert begun == [0, 0]


def test_views_are_crops_and_flips_alone():
    drawn = [crop_and_flip().sample(np.random.default_rng(i), 0, (100, 100)) for i in range(400)]
    shares = [(v.box[2] - v.box[0]) * (v.box[3] - v.box[1]) / 1e4 for v in drawn]
    assert 0.07 < min(shares) < 0.12
    assert max(shares) > 0.95
    assert 160 < sum(v.flip for v in drawn) < 240
    assert not any(v.jitter or v.gray or v.blur or v.rotation or v.solarize for v in drawn)


def test_parts_are_near_256_for_each_rank_and_fit_lanes_and_ranks():
    assert part_of(4096, 1, 1) == 256
    assert part_of(4096, 1, 8) == 2048
    assert part_of(4000, 1, 1) == 250
    assert part_of(4093, 1, 1) == 4093  # a prime: nothing between 1 and itself
    assert part_of(96, 32, 3) == 96
    assert part_of(10, 1, 3) == 10  # cannot be shared, which the loader says


def test_a_protocol_gets_a_copy_of_the_network_its_views_and_its_test_images(shards, monkeypatch):
    """The views that features are of, or crops of another kind; each rank its share."""
    run, network = views(shards), nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 2))
    images = run.images_of(FrozenNetwork("linear", network), shards)
    copied = images.network()
    with torch.no_grad():
        copied[1].weight.zero_()
    assert network[1].weight.abs().min() > 0
    assert (images.shape, images.count) == ((3, SIDE, SIDE), IMAGES)
    for parts, features in zip(images.train(1, BATCH, 0.08, 0.5), run(1, BATCH), strict=True):
        x, labels = next(parts)
        assert torch.equal(x.flatten(1), features.x)
        assert torch.equal(labels, features.labels)
        assert next(parts, None) is None
    whole = [next(parts)[0] for parts in images.train(1, BATCH, 1.0, 0.0)]
    flipped = [next(parts)[0] for parts in images.train(1, BATCH, 1.0, 1.0)]
    for plain, mirrored in zip(whole, flipped, strict=True):
        torch.testing.assert_close(plain.flip(3), mirrored, atol=0.1, rtol=0)  # resized, then bytes
    x, rows = (torch.cat(each) for each in zip(*images.test(), strict=True))
    assert rows.tolist() == [*range(IMAGES)]
    as_rank(monkeypatch, 1, 2)
    assert [*images.test()] == []  # one batch, which is the other rank's
    assert x.shape == (IMAGES, 3, SIDE, SIDE)
