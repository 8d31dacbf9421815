"""One view of an image: what was drawn for it (`ViewParams`), and its rendering.

The operations are the ones of the paper's torchvision pipeline, in its order, on uint8 pixels; each
is tested against torchvision or Pillow. Grey images [H, W] stay one channel wide as long as no
operation needs three, which none of these does: the result equals that of the RGB image. uint16
pixels of other channels than three (`decode.decode_as`) go through the same operations, but for
those that need colour; a contrast is about each channel's own mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from simsiam_zoo.data.decode import Pixels, to_rgb
from simsiam_zoo.errors import InputError

MAX_RESIZED = 1 << 24
"""Pixels of a whole image at the size that evaluation looks at it."""

TOP = 65535
"""The brightest level of uint16 pixels."""

COLOUR = ("saturation", "hue", "gray")
"""Operations that only three channels have."""

_LONGEST = 1 << 15  # sides from here on are too long for OpenCV's warps
CUT = -0.5 + 2**-10
"""Turns rounding to the nearest level into Pillow's cutting off, but for rounding errors."""

LUMA = (9798 / 32768, 19235 / 32768, 3735 / 32768)
"""Shares of red, green and blue in a grey level, as OpenCV has them; exact in float32."""


@dataclass(frozen=True, slots=True)
class ViewParams:
    """The drawn parameters of one view.

    Attributes:
        box: (left, top, right, bottom) of the crop in source pixels, inside the image.
        flip: mirrored left to right.
        rotation: degrees counter-clockwise about the crop's center, after the shear.
        shear: horizontal displacement per pixel of height, about the crop's center.
        jitter: color operations in order: ("brightness" | "contrast" | "saturation", factor),
            1 changes nothing; ("hue", share of the circle) and ("offset", added to the levels as a
            share of their range), 0 changes nothing.
        gray: turned grey.
        blur: sigma of the Gaussian blur in pixels of the view; 0 for none.
        solarize: levels from here up are inverted; None for none.
        bicubic: the crop is resized with Pillow's bicubic filter; False: with its bilinear one. A
            view with rotation or shear is always sampled bilinearly.
    """

    box: tuple[int, int, int, int]
    flip: bool = False
    rotation: float = 0.0
    shear: float = 0.0
    jitter: tuple[tuple[str, float], ...] = ()
    gray: bool = False
    blur: float = 0.0
    solarize: int | None = None
    bicubic: bool = False


def render_view(image: Pixels, view: ViewParams, size: int) -> Pixels:
    """Render one view.

    Args:
        image: [H, W, 3], or [H, W] for grey; or uint16 of other channels.
        view: what to do. InputError where it needs a colour that the image has not.
        size: side of the view in pixels.

    Returns:
        [size, size, 3], or [size, size] for a grey image.
    """
    deep = image.dtype == np.uint16
    if deep and (missing := colour_of(view)):
        raise InputError(
            f"a view is to be changed in {missing[0]}, and images of other channels than three have"
            " no colour",
            "Set what the augmentation draws it by to 0, or choose another augmentation.",
        )
    if view.rotation or view.shear:
        out = _affine_crop(image, view, size)
    else:
        left, top, right, bottom = view.box
        out = resize(image[top:bottom, left:right], size, size, bicubic=view.bicubic)
    if view.flip:
        out = cast(Pixels, cv2.flip(out, 1))
    for operation, amount in view.jitter:
        out = (_DEEP_JITTER if deep else _JITTER)[operation](out, amount)
    if view.gray:
        out = _luma(out)  # one channel from here on: a third of the work
    if view.blur:
        kernel = gaussian(view.blur)
        edge = cv2.BORDER_REPLICATE
        out = cast(Pixels, cv2.sepFilter2D(out, -1, kernel, kernel, borderType=edge))
    if view.solarize is not None:
        most, level = (TOP, 257 * view.solarize) if deep else (255, view.solarize)
        out = np.where(out >= level, most - out, out)
    return out if image.ndim == 2 else to_rgb(out)


def colour_of(view: ViewParams) -> list[str]:
    """Those of `COLOUR` that a view has."""
    drawn = {operation for operation, _ in view.jitter} | ({"gray"} if view.gray else set())
    return [operation for operation in COLOUR if operation in drawn]


def shown(image: Pixels, like: Pixels | None = None) -> Pixels:
    """Pixels as they can be looked at, uint8 [H, W, 3]: of other channels than three the first
    three, or the first of fewer, brightened so that one pixel in 200 of `like` is white.
    """
    if image.dtype == np.uint8:
        return to_rgb(image)
    first, known = (
        x[..., :3] if x.ndim == 3 else x for x in (image, image if like is None else like)
    )
    if first.ndim == 3 and first.shape[2] < 3:
        first, known = first[..., 0], known[..., 0]
    white = max(1.0, float(np.percentile(known, 99.5)))
    return to_rgb(np.clip(np.rint(first * (255 / white)), 0, 255).astype(np.uint8))


def center(image: Pixels, size: int, crop: float = 1.0) -> Pixels:
    """The view for evaluation: the short side to size / crop, then the middle size x size.

    With `crop` 0.875 and size 224 it is the usual Resize(256), CenterCrop(224). Of an image so long
    that it would have more than `MAX_RESIZED` pixels after the resize, the middle is taken first.

    Returns:
        [size, size, 3], or [size, size] for a grey image.
    """
    short = max(size, round(size / crop))
    most = min(image.shape[:2]) * max(1, MAX_RESIZED // short**2)
    y, x = (max(0, length - most) // 2 for length in image.shape[:2])
    image = np.ascontiguousarray(image[y : image.shape[0] - y, x : image.shape[1] - x])
    height, width = image.shape[:2]
    # torchvision's Resize rounds the long side down
    new_height = short if height <= width else short * height // width
    new_width = short if width <= height else short * width // height
    out = resize(image, new_height, new_width)
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    return out[top : top + size, left : left + size]


def resize(image: Pixels, height: int, width: int, bicubic: bool = False) -> Pixels:
    """Bilinear or bicubic resize, antialiased: within one level of Pillow's (two in rare pixels).

    An image that has the size already is returned as it is.
    """
    if image.shape[:2] == (height, width):
        return image
    if image.dtype == np.uint16:
        mode = "bicubic" if bicubic else "bilinear"
        made = F.interpolate(_planes(image).float(), (height, width), mode=mode, antialias=True)
        levels = made[0].permute(1, 2, 0).numpy()
        return _levels(levels if image.ndim == 3 else levels[:, :, 0])
    if not bicubic and image.shape[0] <= height and image.shape[1] <= width:
        # There is nothing to antialias. (OpenCV's bicubic filter is another one than Pillow's.)
        return cast(Pixels, cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))
    # torch has Pillow's filter in SIMD code for uint8. Given where to write, it writes channels
    # last; functional.interpolate takes twice the time: it writes planes, to be interleaved again.
    out = np.empty((height, width, *image.shape[2:]), np.uint8)
    operations = torch.ops.aten
    operation = operations._upsample_bicubic2d_aa if bicubic else operations._upsample_bilinear2d_aa
    operation.out(_planes(image), [height, width], False, out=_planes(out))
    return out


def _planes(image: Pixels) -> torch.Tensor:
    """[H, W, C] or [H, W] as [1, C, H, W], without a copy."""
    rows = image[None] if image.ndim == 3 else image[None, :, :, None]
    return torch.from_numpy(rows).permute(0, 3, 1, 2)


def _affine_crop(image: Pixels, view: ViewParams, size: int) -> Pixels:
    """Crop, shear and rotation in one sampling of the source.

    What the rotation brings in from outside the crop is the image's own content; outside of the
    image it is black. Where the crop shrinks, what is needed of the image is shrunk first, with
    antialiasing.
    """
    matrix = view_to_source(view, size)
    left, top, right, bottom = view.box
    if max(right - left, bottom - top) > size or max(image.shape[:2]) >= _LONGEST:
        (x0, x1, width), (y0, y1, height), matrix = needed_part(view, image.shape[:2], size)
        image = resize(image[y0:y1, x0:x1], height, width)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cast(Pixels, cv2.warpAffine(image, matrix, (size, size), flags=flags))


Span = tuple[int, int, int]
"""Where a part of an image starts and ends in one direction, and the pixels it is resized to."""


def needed_part(
    view: ViewParams, extent: tuple[int, ...], size: int
) -> tuple[Span, Span, NDArray[np.float64]]:
    """What a sheared or rotated view shows of an image, shrunk if the view shrinks it.

    Args:
        view: what was drawn.
        extent: (height, width) of the image.
        size: side of the view.

    Returns:
        the part's columns and rows, and the matrix [2, 3] from pixels of the view to the part's.
    """
    left, top, right, bottom = view.box
    matrix = view_to_source(view, size)
    corners = matrix @ np.array([[0, size - 1, 0, size - 1], [0, 0, size - 1, size - 1], [1] * 4])
    margin = np.array([right - left, bottom - top]) / size + 1
    low = np.maximum(0, np.floor(corners.min(axis=1) - margin)).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=1) + margin + 1).astype(int), extent[::-1])
    length = high - low
    scale = np.minimum(1.0, size / np.array([right - left, bottom - top]))
    kept = np.ceil(length * scale).astype(int)
    shrink = kept / length
    matrix *= shrink[:, None]  # pixel centers lie at halves
    matrix[:, 2] += (0.5 - low) * shrink - 0.5
    spans = np.stack([low, high, kept], axis=1).tolist()
    return tuple(spans[0]), tuple(spans[1]), matrix


def view_to_source(view: ViewParams, size: int) -> NDArray[np.float64]:
    """The matrix [2, 3] from pixel (x, y, 1) of the view to the pixel of the source it shows."""
    left, top, right, bottom = view.box
    zoom_x, zoom_y = (right - left) / size, (bottom - top) / size
    angle = math.radians(view.rotation)
    cos, sin = math.cos(angle), math.sin(angle)
    # The inverse of rotation x shear; y points down, so [[cos, sin], [-sin, cos]] turns left.
    a, b = zoom_x * (cos - view.shear * sin), -zoom_x * (sin + view.shear * cos)
    c, d = zoom_y * sin, zoom_y * cos
    middle = (size - 1) / 2
    return np.array(
        [
            [a, b, (left + right - 1) / 2 - (a + b) * middle],
            [c, d, (top + bottom - 1) / 2 - (c + d) * middle],
        ]
    )


def _luma(image: Pixels) -> Pixels:
    return cast(Pixels, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)) if image.ndim == 3 else image


def gaussian(sigma: float) -> NDArray[np.float64]:
    """A kernel out to 3 sigma, in whole 256ths that make one: what flat areas are stays so."""
    reach = math.ceil(3 * sigma)
    kernel = np.rint(256 * cv2.getGaussianKernel(2 * reach + 1, sigma))
    kernel[reach] += 256 - kernel.sum()
    scaled: NDArray[np.float64] = kernel / 256
    return scaled


def _brightness(image: Pixels, factor: float) -> Pixels:
    """factor v, clipped and cut off as Pillow's blend does."""
    return cast(Pixels, cv2.convertScaleAbs(image, alpha=factor, beta=CUT))


def _offset(image: Pixels, share: float) -> Pixels:
    return cast(Pixels, cv2.addWeighted(image, 1.0, image, 0, 255 * share))


def _contrast(image: Pixels, factor: float) -> Pixels:
    """base + factor (v - base), as Pillow's blend; base is the mean luma, a whole level."""
    mean = cv2.mean(image)
    base = int((mean[0] if image.ndim == 2 else np.dot(LUMA, mean[:3])) + 0.5)
    return cast(Pixels, cv2.addWeighted(image, factor, image, 0, base * (1 - factor) + CUT))


def _saturation(image: Pixels, factor: float) -> Pixels:
    """luma + factor (v - luma), as Pillow's blend, by one matrix.

    It is in whole 1024ths, as OpenCV takes it, so that grey stays exactly what it is.
    """
    if image.ndim == 2:
        return image
    shares = np.rint(1024 * (1 - factor) * np.array(LUMA)) / 1024
    matrix = np.full((3, 4), CUT)
    matrix[:, :3] = shares + (1 - shares.sum()) * np.eye(3)
    return cast(Pixels, cv2.transform(image, matrix))


def _hue(image: Pixels, shift: float) -> Pixels:
    if image.ndim == 2:
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    row = np.zeros((hsv.shape[1], 3), np.uint8)
    row[:, 0] = int(shift * 255) & 255
    flat = hsv.reshape(len(hsv), -1)  # one long addition, which wraps as the circle does
    np.add(flat, row.ravel(), out=flat)
    return cast(Pixels, cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))


def _levels(image: NDArray[np.floating[Any]]) -> Pixels:
    """Rounded to levels of 16 bits."""
    return cast(Pixels, np.clip(np.rint(image), 0, TOP).astype(np.uint16))


def _deep_contrast(image: Pixels, factor: float) -> Pixels:
    base = image.mean(axis=(0, 1), dtype=np.float32)
    return _levels(base + np.float32(factor) * (image - base))


_DEEP_JITTER: dict[str, Callable[[Pixels, float], Pixels]] = {
    "brightness": lambda image, factor: _levels(image * np.float32(factor)),
    "offset": lambda image, share: _levels(image + np.float32(TOP * share)),
    "contrast": _deep_contrast,
}

_JITTER = {
    "brightness": _brightness,
    "offset": _offset,
    "contrast": _contrast,
    "saturation": _saturation,
    "hue": _hue,
}
