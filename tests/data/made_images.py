"""Encoded images for the tests of this folder."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def encode(pixels: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def random_png(seed: int, size: int = 12) -> bytes:
    shape = (size, size, 3)
    return encode(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))
