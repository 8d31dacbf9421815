"""Every operation against torchvision or Pillow, the paper's own pipeline."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torchvision.transforms.functional as tv
from PIL import Image, ImageFilter
from torchvision.transforms import InterpolationMode

from simsiam_zoo.catalog import create_component
from simsiam_zoo.data.decode import to_rgb
from simsiam_zoo.data.image import ViewParams as View
from simsiam_zoo.data.image import center
from simsiam_zoo.data.image import render_view as render

RNG = np.random.default_rng(0)


def photograph(height: int, width: int) -> np.ndarray:
    """Smooth patches of color with noise on them."""
    cells = RNG.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(cells).resize((width, height), Image.BICUBIC))
    noisy = smooth.astype(int) + RNG.integers(-15, 16, smooth.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


PHOTO = photograph(200, 260)
PIL = Image.fromarray(PHOTO)
AFFINE = 2 if int(cv2.__version__.split(".")[0]) >= 5 else 8
"""Levels that an affine view may be off: OpenCV 4 samples at 32nds of a pixel, 255 / 32 is 8."""
WHOLE = (0, 0, 96, 96)
SQUARE = np.ascontiguousarray(PHOTO[40:136, 50:146])


def difference(ours: np.ndarray, theirs: object) -> tuple[int, float]:
    gap = np.abs(ours.astype(int) - np.asarray(theirs).astype(int))
    return int(gap.max()), float(gap.mean())


@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((20, 30, 220, 190), 64),  # shrunk
        ((100, 100, 150, 160), 128),  # enlarged
        ((10, 10, 240, 60), 96),  # shrunk one way, enlarged the other
        ((3, 5, 35, 37), 32),  # as it is
        ((259, 199, 260, 200), 8),  # one pixel
    ],
)
def test_crops_are_within_one_level_of_torchvision(box, size):
    left, top, right, bottom = box
    for bicubic in (False, True):
        mode = InterpolationMode.BICUBIC if bicubic else InterpolationMode.BILINEAR
        theirs = tv.resized_crop(PIL, top, left, bottom - top, right - left, [size, size], mode)
        assert difference(render(PHOTO, View(box, bicubic=bicubic), size), theirs)[0] <= 1


def test_an_offset_is_added_to_every_level_and_clipped():
    """BYOL's brightness is additive: x + delta in [0, 1], where torchvision's is a factor."""
    for delta in (-0.4, -0.123, 0.0, 0.4):
        out = render(SQUARE, View(WHOLE, jitter=(("offset", delta),)), 96)
        expected = np.clip(SQUARE / 255 + delta, 0, 1)
        assert np.abs(out / 255 - expected).max() <= 0.5 / 255 + 1e-9


@pytest.mark.parametrize(
    ("operation", "amount", "theirs", "most", "mean"),
    [
        ("brightness", 1.37, tv.adjust_brightness, 1, 0.02),  # a level where float32 rounds
        ("brightness", 0.61, tv.adjust_brightness, 1, 0.02),
        ("contrast", 1.39, tv.adjust_contrast, 1, 0.02),
        ("contrast", 0.6, tv.adjust_contrast, 1, 0.02),
        ("saturation", 1.4, tv.adjust_saturation, 1, 0.2),
        ("saturation", 0.6, tv.adjust_saturation, 1, 0.2),
        ("hue", 0.1, tv.adjust_hue, 16, 1.2),  # both round to 8-bit HSV, in their own ways
        ("hue", -0.1, tv.adjust_hue, 16, 1.2),
        ("hue", 0.0, tv.adjust_hue, 16, 1.2),
    ],
)
def test_color_jitter_is_torchvisions(operation, amount, theirs, most, mean):
    ours = render(SQUARE, View(WHOLE, jitter=((operation, amount),)), 96)
    gap = difference(ours, theirs(Image.fromarray(SQUARE), amount))
    assert gap[0] <= most
    assert gap[1] <= mean


def test_jitter_is_applied_in_the_order_drawn():
    operations = (("contrast", 0.6), ("brightness", 1.4))
    ours = render(SQUARE, View(WHOLE, jitter=operations), 96)
    first = tv.adjust_contrast(Image.fromarray(SQUARE), 0.6)
    assert difference(ours, tv.adjust_brightness(first, 1.4))[0] <= 2
    assert difference(ours, render(SQUARE, View(WHOLE, jitter=operations[::-1]), 96))[0] > 5


def test_grey_flip_and_solarize_are_torchvisions():
    square = Image.fromarray(SQUARE)
    gray = tv.rgb_to_grayscale(square, num_output_channels=3)
    assert difference(render(SQUARE, View(WHOLE, gray=True), 96), gray)[0] <= 1
    assert difference(render(SQUARE, View(WHOLE, flip=True), 96), tv.hflip(square)) == (0, 0)
    assert difference(render(SQUARE, View(WHOLE, solarize=128), 96), tv.solarize(square, 128)) == (
        0,
        0,
    )


@pytest.mark.parametrize("sigma", [0.1, 0.4, 0.8, 1.3, 2.0])
def test_blur_is_near_pillows(sigma):
    # Pillow's is three box filters, ours the Gaussian that they approximate
    theirs = Image.fromarray(SQUARE).filter(ImageFilter.GaussianBlur(sigma))
    most, mean = difference(render(SQUARE, View(WHOLE, blur=sigma), 96), theirs)
    assert most <= 8
    assert mean <= 1.2


def test_blur_leaves_flat_areas_as_they_are():
    for sigma in np.linspace(0.1, 2.0, 39).tolist():
        for level in (1, 128, 255):
            flat = np.full((20, 20, 3), level, np.uint8)
            np.testing.assert_array_equal(render(flat, View((0, 0, 20, 20), blur=sigma), 20), flat)


def sampled(image: np.ndarray, size: int, box: tuple[int, ...], angle: float, shear: float):
    """The affine view by its definition, in float: each pixel asks where in the source it lies."""
    left, top, right, bottom = box
    rotate = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    forward = rotate @ np.array([[1, shear], [0, 1]])  # of the crop, scaled to size x size
    padded = np.pad(image.astype(float), 1)
    out = np.zeros((size, size))
    for y in range(size):
        for x in range(size):
            at = np.linalg.inv(forward) @ (np.array([x, y]) + 0.5 - size / 2)
            sx = (left + right) / 2 + at[0] * (right - left) / size - 0.5 + 1
            sy = (top + bottom) / 2 + at[1] * (bottom - top) / size - 0.5 + 1
            ix, iy = math.floor(sx), math.floor(sy)
            if 0 <= ix < padded.shape[1] - 1 and 0 <= iy < padded.shape[0] - 1:
                fx, fy = sx - ix, sy - iy
                rows = padded[iy : iy + 2, ix : ix + 2] @ np.array([1 - fx, fx])
                out[y, x] = rows @ np.array([1 - fy, fy])
    return np.rint(out)


@pytest.mark.parametrize(("angle", "shear"), [(12.0, 0.2), (-15.0, -0.3), (0.0, 0.3), (170.0, 0.0)])
def test_digit_affine_is_its_definition(angle, shear):
    digit = np.where(RNG.random((28, 28)) < 0.5, 0, 255).astype(np.uint8)
    box = (2, 3, 26, 25)
    ours = render(digit, View(box, rotation=angle, shear=shear), 32)
    assert difference(ours, sampled(digit, 32, box, math.radians(angle), shear))[0] <= AFFINE


@pytest.mark.parametrize("angle", [20.0, -75.0])
def test_rotation_turns_as_pillow_turns(angle):
    ours = render(SQUARE, View(WHOLE, rotation=angle), 96)
    theirs = np.asarray(Image.fromarray(SQUARE).rotate(angle, Image.BILINEAR))
    inside = (slice(24, 72), slice(24, 72))
    assert difference(ours[inside], theirs[inside])[0] <= 2


@pytest.mark.parametrize("box", [(30, 20, 220, 190), (0, 0, 160, 20)])
def test_a_shrinking_affine_is_antialiased(box):
    view = View(box, rotation=14.0, shear=-0.2)
    ours = render(PHOTO, view, 32)
    large = render(PHOTO, view, 256)  # nothing shrinks here
    then_shrunk = Image.fromarray(large).resize((32, 32), Image.BILINEAR)
    assert difference(ours, then_shrunk)[1] < 5
    assert difference(large[4::8, 4::8], then_shrunk)[1] > 5.5  # as it were without antialiasing
    assert difference(np.roll(ours, 1, axis=1), then_shrunk)[1] > 20  # as it were one pixel off


def test_a_grey_image_gives_the_view_of_its_rgb_twin():
    gray = np.ascontiguousarray(PHOTO[:, :, 1])
    augmentation = create_component("augmentation", "simsiam",
        min_scale=0.2, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1,
        jitter_p=0.9, gray_p=0.3, flip_p=0.5, blur_p=0.5,
    )  # fmt: skip
    generator = np.random.default_rng(1)
    for size in (32, 96) * 20:
        view = augmentation.sample(generator, 0, gray.shape)
        np.testing.assert_array_equal(
            to_rgb(render(gray, view, size)), render(to_rgb(gray), view, size)
        )
    affine = View((3, 3, 30, 30), rotation=9, shear=0.1, solarize=100)
    np.testing.assert_array_equal(
        to_rgb(render(gray, affine, 32)), render(to_rgb(gray), affine, 32)
    )


@pytest.mark.parametrize("shape", [(200, 260), (260, 200), (64, 64), (28, 28), (40, 200)])
@pytest.mark.parametrize(("size", "crop"), [(56, 0.875), (32, 1.0)])
def test_center_is_torchvisions_resize_and_center_crop(shape, size, crop):
    image = photograph(*shape)
    resized = tv.resize(Image.fromarray(image), round(size / crop), InterpolationMode.BILINEAR)
    ours = center(image, size, crop)
    assert ours.shape == (size, size, 3)
    gap = np.abs(ours.astype(int) - np.asarray(tv.center_crop(resized, [size, size])))
    assert gap.max() <= 2  # each of the two passes rounds for itself
    assert (gap > 1).mean() < 1e-3
