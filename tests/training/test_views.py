"""Runs whose views are finished or made by the device: the same but for rounding."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import digits, png

from simsiam_zoo.data.decode import decode_any, to_rgb
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.data.resident import Resident, expected_bytes
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training import setup as setting_up
from simsiam_zoo.training import views as choosing
from simsiam_zoo.training.batches import to_device, train_loader
from simsiam_zoo.training.setup import Setup, prepare
from simsiam_zoo.training.train import train
from simsiam_zoo.training.views import choose_views

Tiny = Callable[..., Recipe]
WAYS = ("worker", "split", "device")
EACH_STEP = {"training.checkpoint_steps": 1, "evaluation.protocols": []}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 grey and coloured images of many sizes."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("photos")
    samples = []
    for i in range(48):
        height, width = rng.integers(10, 60, 2)
        shape = (height, width, 3) if i % 3 else (height, width)
        coarse = rng.integers(0, 256, (4, 4, *shape[2:]), dtype=np.uint8)
        image = np.kron(coarse, np.ones((15, 15, *(1,) * len(shape[2:])), np.uint8))
        samples.append(PackedSample(f"p{i:02d}", png(image[:height, :width]), "png", i % 2))
    pack_dataset(folder, {"train": samples}, ("a", "b"), shard_size=16)
    return folder


def first_batches(setup: Setup, count: int) -> list[Any]:
    made = train_loader(setup).batches()
    return [to_device(setup, next(made)) for _ in range(count)]


@pytest.mark.parametrize("augmentation", ["digits", "simsiam", "simsiam:interpolation=bicubic"])
def test_all_ways_give_the_same_views_but_for_rounding(tiny: Tiny, photos, augmentation) -> None:
    settings = {"dataset": str(photos), "augmentation": augmentation, "evaluation.protocols": []}
    ways = {way: prepare(tiny({**settings, "data.views": way})) for way in WAYS}
    batches = {way: first_batches(setup, 4) for way, setup in ways.items()}
    level = 1 / 255 / min(ways["worker"].recipe.data.std)
    for way in ("split", "device"):
        for ours, theirs in zip(batches[way], batches["worker"], strict=True):
            assert torch.equal(ours.ids, theirs.ids)
            for a, b in zip(ours.views, theirs.views, strict=True):
                assert a.shape == b.shape
                assert a.dtype == b.dtype
                assert a.is_contiguous(memory_format=torch.channels_last)
                apart = (a - b).abs() / level
                assert apart.mean() <= 0.1
                assert (apart > 2.01).float().mean() < 2e-3


def test_resident_images_are_the_decoded_ones(photos: Path) -> None:
    shards = open_shards(str(photos)).train
    resident = Resident(shards, torch.device("cpu"))
    ids = np.array([5, 0, 47, 3, 3, 21])
    images, sizes = resident.images(ids)
    for id, image, (height, width) in zip(ids.tolist(), images, sizes.tolist(), strict=True):
        assert resident.index.outline(id)[1].shape == (height, width)
        inside = image[:, :height, :width]
        assert inside.shape[1:] == (height, width)
        expected = to_rgb(decode_any(shards.read(id).image))
        np.testing.assert_array_equal(inside.permute(1, 2, 0).numpy(), expected)
        outside = image.clone()
        outside[:, :height, :width] = 0
        assert not outside.any()
    pixels = sum(shape[0] * shape[1] for shape in sizes_of(shards))
    assert pixels < expected_bytes(shards) < 3 * pixels


def sizes_of(shards: Any) -> list[tuple[int, ...]]:
    resident = Resident(shards, torch.device("cpu"))
    return [resident.index.outline(id)[1].shape for id in range(len(shards))]


@pytest.mark.parametrize("way", WAYS)
def test_runs_repeat_to_the_bit_and_go_on_as_if_never_stopped(
    tiny: Tiny, tmp_path: Path, way: str
) -> None:
    recipe = tiny({**EACH_STEP, "data.views": way})
    train(recipe, tmp_path / "whole", progress=Progress())
    stopped = tmp_path / "stopped"
    shutil.copytree(tmp_path / "whole", stopped)
    for name in ("result.json", "backbone.safetensors"):
        (stopped / name).unlink(missing_ok=True)
    last = sorted((stopped / "checkpoints").glob("step-*.pt"))[-1]
    last.unlink()  # goes on from the one before
    train(recipe, stopped, resume=True, progress=Progress())
    whole, resumed = (
        load_file(folder / "backbone.safetensors") for folder in (tmp_path / "whole", stopped)
    )
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_workers_of_split_views_give_what_one_process_does(tiny: Tiny) -> None:
    with_worker = prepare(tiny({"data.views": "split", "data.workers": 1}))
    alone = prepare(tiny({"data.views": "split"}))
    for ours, theirs in zip(first_batches(with_worker, 3), first_batches(alone, 3), strict=True):
        assert all(map(torch.equal, ours.views, theirs.views))


def test_a_damaged_image_is_replaced_alike(tiny: Tiny, tmp_path: Path) -> None:
    samples = digits(48)
    for i in (5, 20):
        samples[i] = dataclasses.replace(samples[i], image=b"\x89PNG\r\n\x1a\n and no more")
    pack_dataset(tmp_path, {"train": samples}, None, shard_size=16)
    settings = {"dataset": str(tmp_path), "training.epochs": 1, "evaluation.protocols": []}
    found = {}
    for way in WAYS:
        made = list(train_loader(prepare(tiny({**settings, "data.views": way}))))
        found[way] = [(each.ids.tolist(), each.labels.tolist(), each.damaged) for each in made]
    assert sum(len(damaged) for _, _, damaged in found["worker"]) == 2
    assert found["worker"] == found["split"] == found["device"]


def test_the_identity_says_which_way_and_auto_is_the_worker_on_a_cpu(tiny: Tiny) -> None:
    identities = {way: prepare(tiny({"data.views": way})).identity for way in (*WAYS, "auto")}
    assert len({identities[way] for way in WAYS}) == 3
    assert identities["auto"] == identities["worker"]


def test_a_resume_keeps_what_auto_chose(tiny: Tiny, tmp_path: Path, monkeypatch) -> None:
    recipe = tiny(EACH_STEP)
    with monkeypatch.context() as patch:  # as on a machine with CUDA
        patch.setattr(setting_up, "choose_views", lambda *_: "device")
        train(recipe, tmp_path / "run", progress=Progress())
    for name in ("result.json", "backbone.safetensors"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
    sorted((tmp_path / "run" / "checkpoints").glob("step-*.pt"))[-1].unlink()
    train(recipe, tmp_path / "run", resume=True, progress=Progress())
    assert 'views = "device"' in (tmp_path / "run" / "lock.toml").read_text()


class Cuda:
    """A device that only has a type and a name."""

    type = "cuda"


@pytest.mark.parametrize(
    ("settings", "memory", "way"),
    [
        ({}, 1e9, "device"),
        ({}, 1000, "split"),
        ({"data.resident": 0.0}, 1e9, "split"),
        ({"data.resident": 1.0}, 1000, "device"),
        ({"data.views": "worker"}, 1e9, "worker"),
    ],
)
def test_auto_on_cuda_is_the_device_where_the_images_fit(
    tiny: Tiny, monkeypatch, settings, memory, way
) -> None:
    monkeypatch.setattr(choosing, "memory_of", lambda _: memory)
    recipe = tiny(settings)
    dataset = recipe.part("dataset").create(stream=False)
    assert choose_views(recipe, Cuda(), dataset) == way


def test_what_cannot_be_is_refused_with_a_way_out(tiny: Tiny, monkeypatch) -> None:
    with pytest.raises(InputError, match=r"images take about .* are theirs") as caught:
        prepare(tiny({"data.views": "device", "data.resident": 0.0}))
    assert "data.resident" in str(caught.value.hint)

    recipe = tiny({"data.views": "split"})
    monkeypatch.setattr(
        "simsiam_zoo.components.augmentations.DigitsAugmentation.apply",
        lambda *_: None,
        raising=False,
    )
    with pytest.raises(InputError, match="applies views itself"):
        prepare(recipe)
    assert prepare(tiny({"data.views": "auto"})).views == "worker"
