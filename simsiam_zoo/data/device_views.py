"""Views made on the device: many at once, in torch, from the parameters that were drawn for them.

The operations are those of `data.image`, in its order and rounded where it rounds, so that the same
parameters give the same view to within two levels of 255. `split` leaves to the device what follows
the crop (`finish_views`); `device` all of it (`crop_views`, from `Resident` images).

Which views get which operation is known on the host: nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from simsiam_zoo.data.image import CUT, LUMA, ViewParams, needed_part
from simsiam_zoo.errors import InputError
from simsiam_zoo.runtime.device import full_fp32

MAX_OPERATIONS = 8
"""Colour operations that one view may have."""

_OPERATIONS = ("brightness", "offset", "contrast", "saturation", "hue")
_BOX, _FLIP, _ROTATION, _SHEAR, _GRAY, _BLUR, _SOLARIZE, _BICUBIC = slice(0, 4), *range(4, 11)
_CODES, _AMOUNTS = slice(11, 11 + MAX_OPERATIONS), slice(11 + MAX_OPERATIONS, None)
COLUMNS = 11 + 2 * MAX_OPERATIONS
_NONE = -1.0

Table = NDArray[np.float32]
"""Drawn parameters of M views, [M, COLUMNS], as `write_view` writes them."""


def write_view(view: ViewParams, row: Table) -> None:
    """Write a view's parameters as numbers to one row [COLUMNS], to be sent to the device.

    Raises:
        InputError: the view has more colour operations than the row has room for.
    """
    if len(view.jitter) > MAX_OPERATIONS:
        raise InputError(
            f"a view has {len(view.jitter)} colour operations, and the device does at most"
            f" {MAX_OPERATIONS}",
            "Set data.views = 'worker'.",
        )
    solarize = _NONE if view.solarize is None else view.solarize
    amounts = (view.rotation, view.shear, view.gray, view.blur, solarize, view.bicubic)
    row[:] = _NONE
    row[: _CODES.start] = (*view.box, view.flip, *amounts)
    for at, (operation, amount) in enumerate(view.jitter):
        row[_CODES.start + at] = _OPERATIONS.index(operation)
        row[_AMOUNTS.start + at] = amount


def crop_of(view: ViewParams) -> ViewParams:
    """The part of a view that comes before `finish_views`."""
    return ViewParams(view.box, rotation=view.rotation, shear=view.shear, bicubic=view.bicubic)


@torch.no_grad()
@full_fp32()
def finish_views(pixels: Tensor, table: Table) -> Tensor:
    """What follows the crop: flip, colour, grey, blur, solarisation.

    uint8 [M, C, S, S], of 3 channels or 1 for grey images, to the same, in memory as `pixels` is.
    """
    changes = [change for change in _changes(table) if change.chosen.any()]
    chosen = [np.flatnonzero(change.chosen) for change in changes]
    given = [change.amounts[rows] for change, rows in zip(changes, chosen, strict=True)]
    views, device = pixels.float(), pixels.device
    sent = zip(changes, _together(chosen, device), _together(given, device), strict=True)
    for change, rows, amounts in sent:
        if len(rows) == len(views):
            views = change.operation(views, amounts.view(len(rows), -1, 1, 1))
        else:
            views[rows] = change.operation(views[rows], amounts.view(len(rows), -1, 1, 1))
    return views.to(torch.uint8)


@torch.no_grad()
@full_fp32()
def crop_views(images: Tensor, sizes: NDArray[np.int64], table: Table, size: int) -> Tensor:
    """The crops, resized with antialiasing, sheared and rotated: what comes before `finish_views`.

    Images are uint8 [M, C, H, W], each in the upper left corner and 0 beyond its own size, (height,
    width) in `sizes` [M, 2]; views uint8 [M, C, S, S].
    """
    out = images.new_empty((len(table), images.shape[1], size, size))
    left, top, right, bottom = table[:, _BOX].T
    turned = (table[:, _ROTATION] != 0) | (table[:, _SHEAR] != 0)
    grows = (right - left <= size) & (bottom - top <= size) & (table[:, _BICUBIC] <= 0) & ~turned
    ways = ((turned, _affine_crops), (grows, _enlarged_crops), (~turned & ~grows, _resized_crops))
    for chosen, make in ways:
        if chosen.all():
            return make(images.float(), sizes, table, size).to(torch.uint8)
        if chosen.any():
            index = to_device(np.flatnonzero(chosen), images.device)
            views = make(images[index].float(), sizes[chosen], table[chosen], size)
            out[index] = views.to(torch.uint8)
    return out


class _Change(NamedTuple):
    """An operation on the `chosen` of M views, with an amount for each view."""

    chosen: NDArray[np.bool_]
    operation: Callable[[Tensor, Tensor], Tensor]
    """Views [k, C, S, S] and amounts [k, numbers, 1, 1] → views."""
    amounts: Table


def _changes(table: Table) -> Iterator[_Change]:
    """All that may follow the crop, in its order."""
    yield _Change(table[:, _FLIP] > 0, lambda x, _: x.flip(-1), table[:, _FLIP])
    for codes, amounts in zip(table[:, _CODES].T, table[:, _AMOUNTS].T, strict=True):
        for code, operation in enumerate(_OPERATIONS):
            yield _Change(codes == code, _JITTER[operation], amounts)
    yield _Change(table[:, _GRAY] > 0, lambda x, _: _luma(x).expand_as(x), table[:, _GRAY])
    yield _Change(table[:, _BLUR] > 0, _blur, gaussians(table[:, _BLUR]))
    levels = table[:, _SOLARIZE]
    yield _Change(levels != _NONE, lambda x, level: torch.where(x >= level, 255 - x, x), levels)


def _together(arrays: Sequence[NDArray[Any]], device: torch.device) -> Sequence[Tensor]:
    """Copies of arrays on a device, flat, by one transfer."""
    if not arrays:
        return []
    flat = to_device(np.concatenate([array.ravel() for array in arrays]), device)
    return torch.split(flat, [array.size for array in arrays])


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array's copy on a device, which is not waited for."""
    found = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return found.pin_memory().to(device, non_blocking=True)
    return found.to(device)


def _resized_crops(images: Tensor, sizes: object, table: Table, size: int) -> Tensor:
    left, top, right, bottom = table[:, _BOX].T
    bicubic, to = table[:, _BICUBIC] > 0, np.full(len(table), size)
    return _resample(images, (top, bottom, to, size), (left, right, to, size), bicubic)


def _enlarged_crops(images: Tensor, sizes: object, table: Table, size: int) -> Tensor:
    """Bilinear, as OpenCV does it: in whole 2048ths, and both taps of a column are cut off."""
    left, top, right, bottom = table[:, _BOX].T
    across = _two_taps(images.shape[3], left, right, size, images.device)
    down = _two_taps(images.shape[2], top, bottom, size, images.device)
    narrow = (images @ (across[0] + across[1]).transpose(1, 2).unsqueeze(1) / 16).floor()
    first, second = (((tap.unsqueeze(1) @ narrow) / 65536).floor() for tap in down)
    return ((first + second + 2) / 4).floor().clamp(0, 255)


def _two_taps(
    length: int, start: NDArray[Any], end: NDArray[Any], size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Of a resize without antialiasing, the weights of the two pixels beside each result, in
    2048ths: each [M, size, length]."""
    first, last = to_device(np.array([start, end - 1], np.float32), device).view(2, -1, 1, 1)
    out = torch.arange(size, device=device, dtype=torch.float32).view(1, -1, 1)
    source = torch.arange(length, device=device, dtype=torch.float32)
    at = (out + 0.5) * ((last + 1 - first) / size) - 0.5
    at = torch.minimum(at.clamp(min=0), last - first)
    lower = at.floor()
    share = ((at - lower) * 2048).round()
    return (
        torch.where(source == first + lower, 2048 - share, 0.0),
        torch.where(source == first + lower + 1, share, 0.0),
    )


Axis = tuple[NDArray[Any], NDArray[Any], NDArray[Any], int]
"""Of one direction: where each image's part starts and ends, to how many pixels it is resized, and
how many pixels the result has; those beyond are 0."""


def _resample(images: Tensor, rows: Axis, columns: Axis, bicubic: NDArray[np.bool_]) -> Tensor:
    """Parts of images resized as Pillow does, first along the rows, rounded in between."""
    across = _filters(images.shape[3], columns, bicubic, images.device)
    down = _filters(images.shape[2], rows, bicubic, images.device)
    narrow = _half_up(images @ across.transpose(1, 2).unsqueeze(1))
    return _half_up(down.unsqueeze(1) @ narrow)


def _half_up(x: Tensor) -> Tensor:
    return (x + 0.5).floor().clamp(0, 255)


def _filters(length: int, axis: Axis, bicubic: NDArray[np.bool_], device: torch.device) -> Tensor:
    """Weights [M, pixels of the result, `length`] of a resize with antialiasing.

    They are rounded to what fits 16 bits, as the worker's are: it decides ties.
    """
    packed = np.stack([axis[0], axis[1], axis[2], bicubic]).astype(np.float32)
    start, end, to, cubic = to_device(packed, device).view(4, -1, 1, 1)
    scale = (end - start) / to
    out = torch.arange(axis[3], device=device, dtype=torch.float32).view(1, -1, 1)
    source = torch.arange(length, device=device, dtype=torch.float32)
    distance = (source + 0.5 - start - (out + 0.5) * scale).abs() / scale.clamp(min=1)
    weights = (1 - distance).clamp(min=0)
    if bicubic.any():
        near = ((1.5 * distance - 2.5) * distance) * distance + 1  # Keys' kernel, a = -0.5
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        third = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
        weights = torch.where(cubic > 0, third, weights)
    inside = (source >= start) & (source < end) & (out < to)
    weights = torch.where(inside, weights, 0.0)
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-6)
    largest = weights.amax((1, 2), keepdim=True).clamp(min=1e-6)
    unit = torch.exp2((32767.5 / largest).log2().floor())
    return (weights * unit).round() / unit


def _affine_crops(images: Tensor, sizes: NDArray[np.int64], table: Table, size: int) -> Tensor:
    """As `data.image` does it: what is needed of an image is shrunk first, then sampled once."""
    parts, matrices = [], []
    for extent, row in zip(sizes.tolist(), table, strict=True):
        columns, rows, matrix = needed_part(_geometry(row), extent, size)
        parts.append((*columns, *rows))
        matrices.append(matrix)
    x0, x1, to_x, y0, y1, to_y = np.array(parts).T
    across, down = (x0, x1, to_x, int(to_x.max())), (y0, y1, to_y, int(to_y.max()))
    images = _resample(images, down, across, np.zeros(len(table), bool))
    to_part = to_device(np.stack(matrices).astype(np.float32), images.device)
    line = torch.arange(size, device=images.device, dtype=torch.float32)
    y, x = torch.meshgrid(line, line, indexing="ij")
    at = torch.stack([x, y, torch.ones_like(x)], -1) @ to_part.transpose(1, 2).unsqueeze(1)
    extent = to_device(np.array([images.shape[3], images.shape[2]], np.float32), images.device)
    grid = (2 * at + 1) / extent - 1  # the outer edges of an image are at -1 and 1
    return _levels(F.grid_sample(images, grid, "bilinear", "zeros", align_corners=False))


def _geometry(row: Table) -> ViewParams:
    left, top, right, bottom = (int(edge) for edge in row[_BOX])
    return ViewParams(
        (left, top, right, bottom), rotation=float(row[_ROTATION]), shear=float(row[_SHEAR])
    )


def gaussians(sigmas: Table) -> Table:
    """The kernels of `data.image.gaussian`, each in the middle of [M, taps]; 0 without a blur."""
    wide = np.maximum(sigmas, 0).astype(np.float64)[:, None]
    reach = int(np.ceil(3 * wide).max())
    distance = np.arange(-reach, reach + 1)
    kernels = np.exp(-0.5 * np.square(distance / np.maximum(wide, 1e-3)))
    kernels *= (np.abs(distance) <= np.ceil(3 * wide)) & (wide > 0)
    kernels = np.rint(256 * kernels / np.maximum(kernels.sum(1, keepdims=True), 1))
    kernels[:, reach] += np.where(sigmas > 0, 256 - kernels.sum(1), 0)
    return np.asarray(kernels / 256, np.float32)


def _blur(x: Tensor, kernels: Tensor) -> Tensor:
    """Each view by its kernel; sums of whole 65536ths, exact in float32, rounded once."""
    taps, size = kernels.shape[1], x.shape[-1]
    out, source = (torch.arange(n, device=x.device) for n in (size, size + taps - 1))
    tap = source - out[:, None]
    band = kernels.flatten(1)[:, tap.clamp(0, taps - 1)] * ((tap >= 0) & (tap < taps))
    padded = F.pad(x, (taps // 2,) * 4, mode="replicate")
    band = band.unsqueeze(1)
    return (band @ (padded @ band.transpose(2, 3)) + 0.5).floor()


def _levels(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255)


def _luma(x: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return x
    return _half_up(_exact_luma(x))


def _exact_luma(x: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(1)


def _brightness(x: Tensor, factor: Tensor) -> Tensor:
    return _levels(x * factor + CUT)


def _offset(x: Tensor, share: Tensor) -> Tensor:
    return _levels(x + 255 * share)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    mean = (_exact_luma(x).mean((1, 2, 3), keepdim=True) + 0.5).floor()
    return _levels(x * factor + (mean * (1 - factor) + CUT))


def _saturation(x: Tensor, factor: Tensor) -> Tensor:
    """By the worker's matrix of whole 1024ths: sums of them are exact in float32."""
    if x.shape[1] == 1:
        return x
    shares = [(1024 * (1 - factor) * share).round() / 1024 for share in LUMA]
    gray = sum(shares[c] * x[:, c : c + 1] for c in range(3))
    return _levels(x * (1 - sum(shares)) + (gray + CUT))


def _hue(x: Tensor, shift: Tensor) -> Tensor:
    """Through hue, saturation and value of 256 levels each, as OpenCV rounds them."""
    if x.shape[1] == 1:
        return x
    value = x.amax(1)
    spread = value - x.amin(1)
    red, green, blue = x.unbind(1)
    saturation = _shifted(spread * (255 * 4096 / value.clamp(min=1)).round())
    step = (256 * 4096 / (6 * spread.clamp(min=1))).round()
    red_is, green_is = red == value, green == value
    above = torch.where(
        red_is,
        green - blue,
        torch.where(green_is, blue - red + 2 * spread, red - green + 4 * spread),
    )
    turn = torch.where(spread > 0, _shifted(above * step), 0.0)
    turn = (turn + (shift.squeeze(1) * 255).trunc()) % 256
    sector = turn * (6 / 255)  # OpenCV goes from 256 levels of hue, and comes back from 255
    share, chroma = saturation / 255, value / 255
    channels = [
        chroma * (1 - share * (1 - _triangle(sector + offset))) for offset in (0.0, 4.0, 2.0)
    ]
    return _levels(torch.stack(channels, 1) * 255)


def _shifted(x: Tensor) -> Tensor:
    """x / 4096, rounded half up, as integers are shifted."""
    return ((x + 2048) / 4096).floor()


def _triangle(sector: Tensor) -> Tensor:
    """How much of the full colour red has at a hue of 0 to 6; green and blue are turned by 4, 2."""
    turned = sector % 6
    return ((turned - 3).abs() - 1).clamp(0, 1)


_JITTER = {
    "brightness": _brightness,
    "offset": _offset,
    "contrast": _contrast,
    "saturation": _saturation,
    "hue": _hue,
}
