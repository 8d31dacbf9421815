"""Multi-crop: a few large views of an image and several small ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy.random import Generator

from simsiam_zoo.plugin import InputError, ViewParams, create_component, random_resized_box

_RATIO = 96 / 224
"""Side of a small view beside that of a large one, in SwAV and DINO."""


class MultiCrop:
    """Large views that show much of an image, and small ones that show little of it.

    Sizes and scales are SwAV's (arXiv:2006.09882 appendix A): 2 views of 224 px that show 14 to
    100 % of the image's area, and 6 of 96 px that show 5 to 14 %. Everything but the crop's box is
    drawn by a built-in augmentation, the `base`.

    Args:
        base: which one, as a spec: "simsiam", "digits", "cifar:hue=0.2".
        large, small: how many views of each size; the large ones come first.
        small_size: side of a small view in pixels; "auto": 96/224 of `data.image_size`.
        min_scale, split_scale, max_scale: small views show from the first to the second share of
            the image's area, large ones from the second to the third.
    """

    def __init__(
        self,
        *,
        base: str,
        large: int,
        small: int,
        small_size: int | str,
        min_scale: float,
        split_scale: float,
        max_scale: float,
    ) -> None:
        if not min_scale <= split_scale <= max_scale:
            raise InputError(
                f"augmentation multi-crop: min_scale {min_scale}, split_scale {split_scale} and"
                f" max_scale {max_scale} are not in this order",
                "For example min_scale=0.05,split_scale=0.14,max_scale=1.",
            )
        self.large, self.small, self.small_size = large, small, small_size
        self.small_scale, self.large_scale = (min_scale, split_scale), (split_scale, max_scale)
        self.base: Any = create_component("augmentation", f"simsiam-zoo/{base}")

    def view_sizes(self, size: int) -> list[int]:
        """The side of each view in pixels, where a large one has `size`."""
        auto = isinstance(self.small_size, str)
        small = max(1, round(size * _RATIO)) if auto else int(self.small_size)
        if self.small and small >= size:
            raise InputError(
                f"augmentation multi-crop: small views of {small} px are no smaller than large"
                f" ones, of {size} px (data.image_size)",
                "Say a smaller small_size, or small=0.",
            )
        return [size] * self.large + [small] * self.small

    def sample(self, generator: Generator, view: int, size: tuple[int, int]) -> ViewParams:
        """Draw one view of an image of `size` (height, width)."""
        scale = self.large_scale if view < self.large else self.small_scale
        box = random_resized_box(generator, size, *scale)
        drawn: ViewParams = self.base.sample(generator, view, size)
        return replace(drawn, box=box)
