"""The built-in augmentations: they draw views' parameters, `data.image.render_view` applies them.

The distributions are those of the torchvision transforms that the paper uses.
"""

from __future__ import annotations

import math
from typing import Any

from numpy.random import Generator

from simsiam_zoo.data.image import ViewParams

_LOG_RATIO = (math.log(3 / 4), math.log(4 / 3))


class SimSiamAugmentation:
    """The paper's: random resized crop, color jitter, grey, blur, flip (arXiv:2011.10566, sec. 3).

    `min_scale` is a share of the image's area; `..._p` are shares of views. The crop's
    `interpolation` is "bilinear", as in SimSiam's code, or "bicubic".
    """

    def __init__(
        self,
        *,
        min_scale: float,
        brightness: float,
        contrast: float,
        saturation: float,
        hue: float,
        jitter_p: float,
        gray_p: float,
        flip_p: float,
        blur_p: float,
        interpolation: str,
    ) -> None:
        self.min_scale = min_scale
        self.bicubic = interpolation == "bicubic"
        self.jitter = (
            ("brightness", 1 - brightness, 1 + brightness),
            ("contrast", 1 - contrast, 1 + contrast),
            ("saturation", 1 - saturation, 1 + saturation),
            ("hue", -hue, hue),
        )
        self.jitter_p, self.gray_p, self.blur_p, self.flip_p = jitter_p, gray_p, blur_p, flip_p

    def sample(self, generator: Generator, view: int, size: tuple[int, int]) -> ViewParams:
        """Draw one view of an image of `size` (height, width)."""
        box = random_resized_box(generator, size, self.min_scale)
        jitter: tuple[tuple[str, float], ...] = ()
        if generator.random() < self.jitter_p:
            order = generator.permutation(len(self.jitter)).tolist()
            ranges = [self.jitter[i] for i in order]
            jitter = tuple(
                (name, generator.uniform(low, high)) for name, low, high in ranges if low < high
            )
        gray, blur, sigma, flip = generator.random(4).tolist()
        return ViewParams(
            box,
            flip=flip < self.flip_p,
            jitter=jitter,
            gray=gray < self.gray_p,
            blur=0.1 + 1.9 * sigma if blur < self.blur_p else 0.0,
            bicubic=self.bicubic,
        )


def cifar_augmentation(**params: Any) -> SimSiamAugmentation:
    """The paper's for 32 px: `SimSiamAugmentation` without blur (arXiv:2011.10566, appendix D)."""
    return SimSiamAugmentation(**params, blur_p=0.0)


class DigitsAugmentation:
    """For digits: crop, small shear and rotation, brightness, contrast; never mirrored.

    `rotation` (degrees) and `shear` (pixels per pixel) are the largest, either way; the factors of
    `brightness` and `contrast` are drawn from 1 - strength to 1 + strength.
    """

    def __init__(
        self, *, min_scale: float, rotation: float, shear: float, brightness: float, contrast: float
    ) -> None:
        self.min_scale, self.rotation, self.shear = min_scale, rotation, shear
        self.brightness, self.contrast = brightness, contrast

    def sample(self, generator: Generator, view: int, size: tuple[int, int]) -> ViewParams:
        """Draw one view of an image of `size` (height, width)."""
        box = random_resized_box(generator, size, self.min_scale)
        rotation, shear, brightness, contrast = generator.uniform(-1.0, 1.0, 4).tolist()
        return ViewParams(
            box,
            rotation=rotation * self.rotation,
            shear=shear * self.shear,
            jitter=(
                ("brightness", 1 + brightness * self.brightness),
                ("contrast", 1 + contrast * self.contrast),
            ),
        )


def random_resized_box(
    generator: Generator, size: tuple[int, int], min_scale: float, max_scale: float = 1.0
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) as torchvision's RandomResizedCrop draws it: area share
    U(min_scale, max_scale), aspect ratio log-uniform in 3/4 to 4/3, whole pixels; after ten misses
    the largest centered box.
    """
    height, width = size
    area = height * width
    low, high = _LOG_RATIO
    for _ in range(10):
        draw_scale, draw_ratio, draw_left, draw_top = generator.random(4).tolist()
        target = area * (min_scale + draw_scale * (max_scale - min_scale))
        ratio = math.exp(low + draw_ratio * (high - low))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(draw_left * (width - w + 1)), int(draw_top * (height - h + 1))
            return left, top, left + w, top + h
    w, h = width, height
    if width * 4 < height * 3:
        h = round(width * 4 / 3)
    elif width * 3 > height * 4:
        w = round(height * 4 / 3)
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
