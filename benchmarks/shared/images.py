"""Images made here: photograph-like JPEGs, and noise."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset


def photograph(rng: np.random.Generator, height: int = 375, width: int = 500) -> np.ndarray:
    """Structure at every scale, falling off as in photographs, and some grain.

    Returns:
        uint8 [height, width, 3].
    """
    image = np.full((height, width, 3), 120, np.float32)
    for cells in (4, 8, 16, 32, 64, 128, 256):
        grid = rng.normal(0, 0.35, (cells * 3 // 4 + 2, cells + 2, 3)).astype(np.float32)
        grid += 3 * grid.mean(axis=2, keepdims=True)
        image += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 60 / cells**0.55
    image += rng.normal(0, 3, (height, width, 1))
    return np.clip(image, 0, 255).astype(np.uint8)


def jpegs(images: int, height: int = 375, width: int = 500) -> list[bytes]:
    """Photographs as JPEGs, 4:2:0; 60 to 110 KB each at 500 x 375."""
    rng, made = np.random.default_rng(0), []
    for i in range(images):
        file = io.BytesIO()
        image = Image.fromarray(photograph(rng, height, width))
        image.save(file, "JPEG", quality=94 + i % 4, subsampling=2)
        made.append(file.getvalue())
    return made


def pack_images(
    folder: Path, images: Sequence[bytes], form: str, samples: int, shard_size: int = 256
) -> None:
    """`samples` training samples in shards, which go through `images` again and again."""
    made = (PackedSample(f"{i:06d}", images[i % len(images)], form, 0) for i in range(samples))
    pack_dataset(folder, {"train": made}, None, shard_size)


def noise_shards(folder: Path, samples: int) -> None:
    """Something for a recipe to find, whose steps are on resident data."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (8, 8, 3), np.uint8) for _ in range(samples)]
    pack_images(folder, [cv2.imencode(".png", x)[1].tobytes() for x in noise], "png", samples)
