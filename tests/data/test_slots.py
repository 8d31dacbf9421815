from __future__ import annotations

import gc
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from made_images import random_png

from simsiam_zoo.components.augmentations import DigitsAugmentation
from simsiam_zoo.data.batches import LoadedBatch
from simsiam_zoo.data.loader import EvalLoader, TrainLoader
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.data.slots import BATCHES_HELD, PREFETCH, Slots
from simsiam_zoo.data.sources import open_shards

DIGITS = DigitsAugmentation(min_scale=0.4, rotation=15, shear=0.3, brightness=0.4, contrast=0.4)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("packed")
    pack_dataset(
        folder, {"train": [PackedSample(str(i), random_png(i), "png", i) for i in range(40)]}, None
    )
    return open_shards(str(folder)).train


def loader(shards: ShardSet, **options: object) -> TrainLoader:
    plan = SampleOrder(shards.counts, seed=1, batch=8)
    return TrainLoader(shards, plan, DIGITS, 16, **{"seed": 5, "epochs": 6, **options})


def test_a_slot_is_free_again_when_no_tensor_over_it_lives_any_more() -> None:
    slots = Slots(1, 12)
    slot = slots.take()
    assert (slot, slots.take()) == (0, None)
    whole = slots.received(slot).view(2, 6)
    kept = [whole[1], whole.numpy()[1:], torch.utils.dlpack.from_dlpack(whole.view(12))]
    del whole
    while kept:
        assert slots.take() is None
        kept.pop()
        gc.collect()
    assert slots.take() == 0


def test_a_caller_that_keeps_every_batch_sees_none_of_them_overwritten(shards: ShardSet) -> None:
    alone = list(loader(shards))
    assert len(alone) > 2 * (PREFETCH + BATCHES_HELD)
    for kept in (list(loader(shards, workers=1)), list(loader(shards, workers=2))):
        for ours, theirs in zip(kept, alone, strict=True):
            assert torch.equal(ours.pixels[0], theirs.pixels[0])
    views = [batch.views[1][2:5] for batch in loader(shards, workers=1)]  # and nothing else of it
    for view, batch in zip(views, alone, strict=True):
        assert torch.equal(view, batch.views[1][2:5])


def places(batches: object) -> list[int]:
    """Where in memory each batch lay that was let go before the next."""
    found = []
    for batch in batches:
        found.append(batch.pixels[0].data_ptr())
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_memory_is_used_again_and_no_batch_needs_more(shards: ShardSet, workers: int) -> None:
    steps = 30
    most = workers * PREFETCH + BATCHES_HELD
    for made in (
        loader(shards, workers=workers),
        EvalLoader(shards, 16, ids=np.arange(40).repeat(6), batch=8, workers=workers),
    ):
        found = places(made)
        assert len(found) == steps
        assert len(set(found)) <= most
        size = abs(found[0] - found[1])
        pool = min(found)
        assert all((place - pool) % (size or 1) == 0 for place in found)


def test_the_last_batch_of_an_evaluation_may_be_smaller_than_its_slot(shards: ShardSet) -> None:
    ours, theirs = (list(EvalLoader(shards, 16, batch=12, workers=w)) for w in (1, 0))
    assert [len(batch.ids) for batch in ours] == [12, 12, 12, 4]
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.pixels[0], b.pixels[0])
        assert torch.equal(a.labels, b.labels)


def test_a_batch_from_a_slot_can_be_sent_on(shards: ShardSet) -> None:
    batch = next(iter(loader(shards, workers=1)))
    copy = pickle.loads(pickle.dumps(batch))
    assert torch.equal(copy.pixels[0], batch.pixels[0])
    assert copy.pixels[0].stride() == batch.pixels[0].stride()


def test_batches_go_by_page_locked_memory_where_it_is_asked_for(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a GPU there is none: a copy stands for it. The slot is free once it was made."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, *_: self.clone())
    batches = [LoadedBatch.pin_memory(batch) for batch in loader(shards, workers=1)]
    for ours, theirs in zip(batches, loader(shards), strict=True):
        assert torch.equal(ours.pixels[0], theirs.pixels[0])
