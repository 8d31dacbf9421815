"""BYOL's augmentation: the two views are not drawn alike."""

from __future__ import annotations

from dataclasses import replace

from numpy.random import Generator

from simsiam_zoo.plugin import SimSiamAugmentation, ViewParams

_THRESHOLD = 128
"""Solarisation inverts levels from a half up: x ↦ 1 - x where x >= 0.5."""


class ByolAugmentation(SimSiamAugmentation):
    """Crop, flip, colour jitter, grey, and by view blur and solarisation (arXiv:2006.07733 B).

    Of two pairs of views the first and third are drawn as first views. Distributions and order are
    the paper's: crops are resized with the bicubic filter, and brightness is an offset, added to
    all levels. What differs: saturation and contrast are torchvision's (in the authors' code
    saturation scales HSV's S, and contrast is about each channel's own mean), and the blur's
    kernel reaches to 3 sigma (theirs is 23 pixels wide at 224). Barlow Twins and VICReg draw
    the same shares with torchvision's brightness (`brightness_offset=false`).

    Args:
        min_scale: smallest crop as a share of the image's area.
        brightness, contrast, saturation, hue: strengths of the jitter.
        jitter_p, gray_p, flip_p: shares of views that get each operation.
        brightness_offset: brightness is added, U(-brightness, brightness) of the range; False: a
            factor U(1 - brightness, 1 + brightness), as torchvision has it.
        interpolation: "bicubic" or "bilinear".
        blur_p1, blur_p2, solarize_p1, solarize_p2: shares of first and of second views.
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
        brightness_offset: bool,
        interpolation: str,
        blur_p1: float,
        blur_p2: float,
        solarize_p1: float,
        solarize_p2: float,
    ) -> None:
        super().__init__(
            min_scale=min_scale,
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            hue=hue,
            jitter_p=jitter_p,
            gray_p=gray_p,
            flip_p=flip_p,
            blur_p=1.0,  # a sigma is drawn for every view; which are blurred is decided below
            interpolation=interpolation,
        )
        if brightness_offset:
            self.jitter = (("offset", -brightness, brightness), *self.jitter[1:])
        self.of_view = ((blur_p1, solarize_p1), (blur_p2, solarize_p2))

    def sample(self, generator: Generator, view: int, size: tuple[int, int]) -> ViewParams:
        """Draw one view of an image of `size` (height, width)."""
        drawn = super().sample(generator, view, size)
        blur_p, solarize_p = self.of_view[view % 2]
        blur, solarize = generator.random(2).tolist()
        return replace(
            drawn,
            blur=drawn.blur if blur < blur_p else 0.0,
            solarize=_THRESHOLD if solarize < solarize_p else None,
        )
