"""Runs on images of other channels than three."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_digits
from tiny_runs import TINY

import simsiam_zoo as zoo
from simsiam_zoo.catalog import PARTS
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.errors import InputError
from simsiam_zoo.model.build import build
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.checkpoint import read_safetensors
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.setup import prepare
from simsiam_zoo.training.train import train

FIVE = {"data.channels": 5, "data.mean": [0.3] * 5, "data.std": [0.25] * 5}


@pytest.fixture(scope="module")
def bands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits in five channels of 16 bits, each another one, as arrays."""
    images, labels = load_digits(return_X_y=True)
    samples = []
    for i, (flat, label) in enumerate(zip(images[:160], labels[:160], strict=True)):
        x = flat.reshape(8, 8) / 16
        channels = np.stack([x, 1 - x, x.T, x**2, np.sqrt(x)], axis=2)
        file = io.BytesIO()
        np.save(file, (channels * 20000).astype(np.uint16))
        samples.append(PackedSample(f"{i:04d}", file.getvalue(), "npy", int(label)))
    folder = tmp_path_factory.mktemp("bands")
    splits = {"train": samples[:96], "val": samples[96:]}
    pack_dataset(folder, splits, tuple("0123456789"), shard_size=32)
    return folder


def recipe_of(bands: Path, settings: dict[str, object] | None = None) -> Recipe:
    return Recipe.make("digits", None, {**TINY, "dataset": str(bands), **FIVE, **(settings or {})})


class _Cut(Exception):
    pass


class Cutting(Progress):
    def advance(self, done: int, text: str = "") -> None:
        if done > 4:
            raise _Cut


def test_a_run_on_five_channels_is_resumed_to_the_bit_evaluated_shown_and_exported(
    bands: Path, tmp_path: Path, zoo_here: Callable[..., Any]
) -> None:
    settings: dict[str, object] = {"training.checkpoint_steps": 1, "evaluation.online_epochs": 0}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    result = train(recipe_of(bands, settings), whole, progress=Progress())
    assert result["verdict"] in ("learned", "no-gain", "undetermined", "worse", "collapsed")
    with pytest.raises(_Cut):
        train(recipe_of(bands, settings), cut, progress=Cutting())
    train(recipe_of(bands, settings), cut, resume=True, progress=Progress())
    one, other = (read_safetensors(f / "backbone.safetensors")[0] for f in (whole, cut))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert next(each for key, each in one.items() if each.dim() == 4).shape[1] == 5

    backbone = zoo.load_backbone(whole / "backbone.safetensors")
    assert backbone(torch.zeros(2, 5, 16, 16)).shape[0] == 2
    said = zoo_here("export", str(whole), "--to", "timm", "--out", "timm.safetensors")
    assert said.returncode == 0, said.stderr
    assert "in_chans=5" in said.stdout
    plain = timm.create_model(
        "test_resnet", num_classes=0, in_chans=5, checkpoint_path=str(tmp_path / "timm.safetensors")
    ).eval()
    images = torch.randn(2, 5, 16, 16)
    with torch.no_grad():
        assert torch.allclose(plain(images), backbone(images), atol=1e-5)

    said = zoo_here("evaluate", str(whole), "--protocol", "knn:k=5", "--json")
    assert said.returncode == 0, said.stderr
    said = zoo_here("look", str(whole), "--map", "pca", "--quiet")
    assert said.returncode == 0, said.stderr
    page = (whole / "look.html").read_text()
    assert "first three of 5 channels" in page


def test_grid_and_inspection_of_five_channels(bands: Path, zoo_here: Callable[..., Any]) -> None:
    said = zoo_here("inspect", str(bands), "--grid", "views.png", "--preset", "digits")
    assert said.returncode == 0, said.stderr
    assert "5 channels of 16 bits" in said.stdout
    assert "the first three are drawn as RGB" in said.stderr
    sheet = np.array(Image.open(next(Path.cwd().glob("views.png"))))
    assert sheet.shape[2] == 3
    assert np.ptp(sheet[4:90, 4:90]) > 100  # 20,000 of 65,535 would be nearly black
    refused = zoo_here("inspect", str(bands), "--grid", "other.png", "--preset", "cifar10")
    assert refused.returncode == 2
    assert "no colour" in refused.stderr


def test_what_does_not_go_together_is_said_before_the_first_step(bands: Path) -> None:
    with pytest.raises(InputError, match="mean has 3 values, and channels is 5"):
        Recipe.make("digits", None, {"data.channels": 5, "data.mean": [0.1, 0.2, 0.3]})
    one = Recipe.make("digits", None, {**FIVE, "data.mean": [0.3], "data.std": [0.25]})
    assert one == Recipe.make("digits", None, FIVE)
    four = {"data.channels": 4, "data.mean": [0.3] * 4, "data.std": [0.3] * 4}
    with pytest.raises(
        InputError, match=r"images have 5 channels, and data.channels is 4"
    ) as found:
        prepare(recipe_of(bands, four))
    assert "data.channels=5" in str(found.value.hint)
    with pytest.raises(InputError, match=r"data.channels is 3"):
        prepare(Recipe.make("digits", None, {**TINY, "dataset": str(bands)}))
    with pytest.raises(InputError, match="changes saturation, hue, gray") as found:
        prepare(recipe_of(bands, {"augmentation": "simsiam"}))
    off = str(found.value.hint).removeprefix("Say ").removesuffix(".").split("--set ")[1:]
    plain = {each.strip().partition("=")[0]: 0.0 for each in off}
    assert len(plain) == 3
    prepare(recipe_of(bands, {"augmentation": "simsiam", **plain}))
    with pytest.raises(InputError, match="workers make the views"):
        prepare(recipe_of(bands, {"data.views": "split"}))


@pytest.mark.parametrize(
    "backbone", ["resnet18", "vit_tiny_patch16_224", "resnet18_cifar", "resnet50_cifar",
                 "resnet_small", "densenet_small", "vgg_small", "vgg11_bn"],
)  # fmt: skip
def test_backbones_take_the_channels(backbone: str) -> None:
    recipe = Recipe.make("digits", None, {"backbone": backbone, "data.image_size": 32})
    with torch.device("meta"):
        siamese = build({part: recipe.part(part) for part in PARTS}, 32, 8, 1, 1, channels=7)
    first = next(p for p in siamese.backbone.parameters() if p.dim() == 4)
    assert first.shape[1] == 7
