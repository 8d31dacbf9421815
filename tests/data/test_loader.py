from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from made_images import encode

from simsiam_zoo.components.augmentations import DigitsAugmentation, SimSiamAugmentation
from simsiam_zoo.data import processes
from simsiam_zoo.data.batches import LoadedBatch
from simsiam_zoo.data.decode import decode_any, to_rgb
from simsiam_zoo.data.draws import Draws
from simsiam_zoo.data.image import ViewParams, center
from simsiam_zoo.data.loader import EvalLoader, TrainLoader, normalize_pixels
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.errors import DataError, InputError

SIMSIAM = SimSiamAugmentation(
    min_scale=0.2, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1,
    jitter_p=0.8, gray_p=0.2, flip_p=0.5, blur_p=0.5,
 interpolation="bilinear")  # fmt: skip
DIGITS = DigitsAugmentation(min_scale=0.4, rotation=15, shear=0.3, brightness=0.4, contrast=0.4)
BATCH = 8


def pack_images(folder: Path, count: int = 42) -> ShardSet:
    """Grey and colored images by turns, 20 x 24, in shards of 10."""
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 256, (20, 24, 3) if i % 2 else (20, 24), dtype=np.uint8)
        for i in range(count)
    ]
    samples = [PackedSample(f"k{i}", encode(image), "png", i % 5) for i, image in enumerate(images)]
    pack_dataset(folder, {"train": samples}, None, shard_size=10)
    return open_shards(str(folder)).train


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return pack_images(tmp_path_factory.mktemp("packed"))


def loader(shards: ShardSet, augmentation: object = SIMSIAM, **options: object) -> TrainLoader:
    plan = SampleOrder(shards.counts, seed=1, batch=BATCH)
    return TrainLoader(shards, plan, augmentation, 16, **{"seed": 5, "epochs": 3, **options})


def assert_same(ours: list[LoadedBatch], theirs: list[LoadedBatch]) -> None:
    assert [(b.epoch, b.step) for b in ours] == [(b.epoch, b.step) for b in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.ids, b.ids)
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.pixels[0], b.pixels[0])


@pytest.mark.parametrize("count", [1, 2])
def test_batches_are_the_same_for_any_number_of_workers_and_any_start(shards, count):
    alone = list(loader(shards))
    assert [(b.epoch, b.step) for b in alone] == [(e, s) for e in range(3) for s in range(5)]
    assert_same(list(loader(shards, workers=count)), alone)
    assert_same(list(loader(shards, workers=count).batches(1, 3)), alone[8:])
    assert list(loader(shards).batches(3, 0)) == []


@pytest.mark.parametrize("count", [0, 1])
def test_loading_draws_nothing_from_the_runs_own_generators(shards, count):
    torch.manual_seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    next(iter(loader(shards, workers=count)))
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_batches_are_the_same(shards):
    pinned = list(loader(shards, workers=1, pin_memory=True))
    assert all(batch.pixels[0].is_pinned() for batch in pinned)
    assert_same(pinned, list(loader(shards)))
    on_device = normalize_pixels(pinned[0].views[0], (0.5,) * 3, (0.5,) * 3, "cuda")
    on_cpu = normalize_pixels(pinned[0].views[0], (0.5,) * 3, (0.5,) * 3)
    torch.testing.assert_close(on_device.cpu(), on_cpu)


def test_a_batch_holds_what_the_plan_says(shards):
    made = loader(shards, views=3)
    for batch in list(made)[:7]:
        np.testing.assert_array_equal(batch.ids, made.plan.ids(batch.epoch, batch.step))
        np.testing.assert_array_equal(batch.labels, shards.labels()[batch.ids])
        assert len(batch.views) == 3
        for view in batch.views:
            assert view.dtype == torch.uint8
            assert view.shape == (BATCH, 3, 16, 16)
            assert view.is_contiguous(memory_format=torch.channels_last)


def test_views_differ_by_view_and_by_epoch_and_never_by_rank(shards):
    whole = list(loader(shards))
    ranks = [list(loader(shards, rank=r, world=2)) for r in range(2)]
    for both, left, right in zip(whole, *ranks, strict=True):
        assert torch.equal(both.ids, torch.cat([left.ids, right.ids]))
        for v in range(2):
            assert torch.equal(both.views[v], torch.cat([left.views[v], right.views[v]]))

    seen = {}
    for batch in whole:
        for row, id in enumerate(batch.ids.tolist()):
            for v in range(2):
                seen[batch.epoch, id, v] = batch.views[v][row].numpy().tobytes()
    assert len(set(seen.values())) > 0.98 * len(seen)
    other_seed = next(iter(loader(shards, seed=6)))
    assert not torch.equal(other_seed.views[0], whole[0].views[0])


def test_a_views_draws_come_from_its_own_place_in_the_counter():
    draws = Draws(seed=2**64 - 3)
    for epoch, id, view in ((0, 0, 0), (7, 10**12, 1), (7, 10**12, 0), (0, 0, 0)):
        key = np.array([2**64 - 3, epoch], np.uint64)
        fresh = np.random.Generator(np.random.Philox(key=key, counter=[0, view, id, 0]))
        ours = draws.at(epoch, id, view)
        np.testing.assert_array_equal(ours.random(3), fresh.random(3))
        # leaves half a word behind, which the next view must not see
        assert ours.integers(0, 9, dtype=np.uint32) == fresh.integers(0, 9, dtype=np.uint32)


class OwnAugmentation:
    """An augmentation that renders for itself."""

    def sample(
        self, generator: np.random.Generator, view: int, size: tuple[int, int]
    ) -> ViewParams:
        assert size == (20, 24)
        return ViewParams((view, 0, 16 + view, 16))

    def apply(self, image: np.ndarray, view: ViewParams, size: int) -> np.ndarray:
        assert image.shape == (20, 24, 3)  # grey ones too
        return np.full((size, size, 3), view.box[0], np.uint8)


def test_an_augmentation_may_render_by_itself(shards):
    batch = next(iter(loader(shards, OwnAugmentation())))
    assert [view.unique().tolist() for view in batch.views] == [[0], [1]]


def test_evaluation_reads_every_sample_once_in_order(shards):
    batches = list(EvalLoader(shards, 16, batch=16, crop=0.8))
    assert [len(b.ids) for b in batches] == [16, 16, 10]
    assert torch.cat([b.ids for b in batches]).tolist() == list(range(42))
    np.testing.assert_array_equal(torch.cat([b.labels for b in batches]), shards.labels())
    views = torch.cat([b.views[0] for b in batches])
    for id in (0, 1, 41):
        expected = center(to_rgb(decode_any(shards.read(id).image)), 16, 0.8)
        np.testing.assert_array_equal(views[id].permute(1, 2, 0), expected)
    ranks = [list(EvalLoader(shards, 16, batch=16, crop=0.8, rank=r, world=2)) for r in range(2)]
    assert_same(ranks[0] + ranks[1], [batches[0], batches[2], batches[1]])


def test_an_interrupt_reaches_the_main_process_only_and_a_dead_worker_is_an_error(shards):
    batches = iter(loader(shards, workers=1, epochs=20))
    first = next(batches)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGINT)
    rest = [next(batches) for _ in range(20)]  # more than was prefetched
    assert (first.step, rest[-1].epoch, rest[-1].step) == (0, 4, 0)

    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(DataError, match="worker process of the loader died"):
        list(batches)


def test_ranks_that_cannot_share_a_batch_are_refused_before_anything_is_read(shards):
    with pytest.raises(InputError, match="3 ranks"):
        loader(shards, world=3)


def test_normalize_is_its_formula():
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4) * 2
    mean, std = [0.48, 0.45, 0.40], [0.2, 0.3, 0.25]
    shape = (1, 3, 1, 1)
    exact = (images.double() / 255 - torch.tensor(mean).double().view(shape)) / torch.tensor(
        std
    ).double().view(shape)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-7), (torch.bfloat16, 4e-3)):
        ours = normalize_pixels(images, mean, std, dtype=dtype)
        assert ours.dtype == dtype
        assert ours.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(ours.double(), exact, rtol=tolerance, atol=tolerance)


def test_ranks_of_one_machine_share_its_cores(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(processes, "available_cores", lambda: 2)
    assert (processes.default_workers("cuda"), processes.default_workers("cpu")) == (0, 0)
    monkeypatch.setattr(processes, "available_cores", lambda: 12)
    assert (processes.default_workers("cuda"), processes.default_workers("cpu")) == (5, 1)
