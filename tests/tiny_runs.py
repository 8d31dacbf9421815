"""Runs that take about a second: what the tests of every floor train."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.recipe import Recipe

TINY: dict[str, object] = {
    "backbone": "test_resnet",
    "data.image_size": 16,
    "data.workers": 0,
    "projector": "mlp:layers=2,hidden_dim=32,out_dim=32",
    "predictor": "mlp:hidden_dim=8",
    "training.batch_size": 16,
    "training.epochs": 2,
    "training.threads": 1,
    "training.precision": "fp32",
    "logging.interval_steps": 1,
    "evaluation.rank_samples": 48,
    "evaluation.baselines": False,
}
"""A run of 2 x 6 steps in about a second."""


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def digits(count: int, labelled: bool = True) -> list[PackedSample]:
    """The first of scikit-learn's digits, 8 x 8 pixels."""
    images, labels = load_digits(return_X_y=True)
    return [
        PackedSample(
            f"{i:04d}",
            png((x.reshape(8, 8) * 15).astype(np.uint8)),
            "png",
            int(y) if labelled else -1,
        )
        for i, (x, y) in enumerate(zip(images[:count], labels[:count], strict=True))
    ]


def pack_digits(folder: Path, classes: tuple[str, ...], first: int = 0) -> Path:
    """96 digits to train on in 3 shards, 64 to test on, labelled; from the `first` one on."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = digits(first + 160)[first:]
    pack_dataset(folder, {"train": samples[:96], "val": samples[96:]}, classes, shard_size=32)
    return folder


def tiny_recipe(shards: Path, settings: Mapping[str, object] | None = None) -> Recipe:
    """`TINY` on the shards, but for what is set otherwise."""
    changed = dict(settings or {})
    data = {} if "dataset" in changed else {"dataset": str(shards)}
    dropped = {key.partition(".")[0] for key in changed if "." not in key}
    base = {key: value for key, value in TINY.items() if key not in dropped}
    return Recipe.make("digits", None, {**base, **data, **changed})
