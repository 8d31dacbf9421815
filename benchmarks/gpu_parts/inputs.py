"""Views of two sizes, and images of five channels: losses, waits, `--compile`, speed."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import numpy as np
import torch

from gpu_parts.losses import beside, losses
from gpu_parts.part import Found, Part
from gpu_parts.resident import noise, paper_setup
from gpu_parts.step import compiled, waits
from gpu_parts.views import WAYS, fed
from shared.images import jpegs, pack_images
from shared.steps import bare_step, speed, steps_in, timed
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.training.batches import to_device, train_loader

STEPS = 10
FIVE = {"data__channels": 5, "data__mean": [0.3] * 5, "data__std": [0.25] * 5}


def run(part: Part) -> None:
    """Losses beside the CPU's first, since a figure of a wrong step means nothing."""
    size, small = part.pick((32, 16), (16, 8))
    crops: dict[str, object] = {
        "augmentation": f"multi-crop:base=cifar,small=4,small_size={small}",
        "gradient": "multi-crop",
    }
    inputs: dict[str, dict[str, object]] = {
        "two sizes": {"data__workers": 0, "data__image_size": size, **crops},
        "five channels of 16 bits": {"dataset": str(five_channels(part.folder)), **FIVE},
    }
    for name, settings in inputs.items():
        reference = losses(part, "cpu", "fp32", part.pick(STEPS, 3), **settings)
        for precision in ("fp32", "bf16", "fp16"):
            work = partial(beside, part, reference, precision, **settings)
            part.case(f"{name}, {precision}", work)
    for way in WAYS:
        work = partial(waits, part, "auto", way, **crops)
        part.case(f"host waits in a step of two sizes, {way}", work)
    batch = part.pick(512, 4)
    folder = part.folder / "images"
    folder.mkdir()
    pack_images(folder, jpegs(part.pick(64, 8), size, size), "jpg", part.pick(40, 4) * batch)
    for predictors in ("one", "by-size"):
        own = crops | {"gradient": f"multi-crop:predictors={predictors}"}
        case = f"2 x {size} + 4 x {small} px, predictors={predictors}"
        part.case(case, partial(resident, part, size, small, batch, own))
    best = part.found(f"2 x {size} + 4 x {small} px, predictors=one").get("images/s", 1.0)
    for way in WAYS:
        work = partial(fed, part, "cifar10", size, batch, folder, best, way, **crops)
        part.case(f"2 x {size} + 4 x {small} px, {way}", work)
    for way in WAYS:
        work = partial(apart, part, size, batch, folder, way, crops)
        part.case(f"views of two sizes, {way} against worker", work)
    work = partial(compiled, part, (small,) * 4, **crops)
    part.case("two sizes, compiled", work, needs=part.pick(30, 0))


def five_channels(folder: Path) -> Path:
    """320 images of 8 px whose channels each are another one, as arrays of 16 bits; ten classes."""
    rng, folder = np.random.default_rng(0), folder / "bands"
    classes = rng.random((10, 8, 8))
    samples = []
    for i in range(320):
        x = np.clip(classes[i % 10] + rng.normal(0, 0.1, (8, 8)), 0, 1)
        file = io.BytesIO()
        channels = np.stack([x, 1 - x, x.T, x**2, np.sqrt(x)], axis=2)
        np.save(file, (channels * 20_000).astype(np.uint16))
        samples.append(PackedSample(f"{i:04d}", file.getvalue(), "npy", i % 10))
    folder.mkdir()
    pack_dataset(folder, {"train": samples[:256], "val": samples[256:]}, tuple("0123456789"), 64)
    return folder


def resident(part: Part, size: int, small: int, batch: int, crops: dict[str, object]) -> Found:
    """Steps on tensors that are there, beside those of two views of the large size."""
    speeds = {}
    for name, settings, sides in (("two", {}, ()), ("more", crops, (small,) * 4)):
        setup = paper_setup(part, "cifar10", size, batch, **settings)
        step = partial(bare_step, setup, noise(part.device, batch, size, sides))
        steps = steps_in(part.device, step, part.pick(1.0, 0.1))
        speeds[name] = speed([timed(part.device, step, steps, batch) for _ in range(2)])
    pixels = 2 * size**2 / (2 * size**2 + 4 * small**2)
    own = speeds["more"]
    return {"images/s": own, "x two views": own / speeds["two"], "by the pixels": pixels}


def apart(
    part: Part, size: int, batch: int, folder: Path, way: str, crops: dict[str, object]
) -> Found:
    """How far the views of one way are from a worker's, large and small ones."""
    made = []
    for each in (way, "worker"):
        settings = crops | {"data__views": each}
        setup = paper_setup(part, "cifar10", size, batch, folder, **settings)
        made.append(to_device(setup, next(train_loader(setup, workers=0).batches())).views)
    level = 1 / 255 / min(setup.recipe.data.std)
    levels = [((a - b).abs() / level).flatten() for a, b in zip(*made, strict=True)]
    joined = torch.cat(levels)
    return {
        "views": " ".join(str(x.shape[-1]) for x in made[0]),
        "levels of 255 apart, mean": float(joined.mean()),
        "more than two levels, share": float((joined > 2.01).float().mean()),
    }
