"""A contact sheet: images as evaluation sees them, and their views as training does."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from simsiam_zoo.data.batches import Augmentation, Draws
from simsiam_zoo.data.image import Pixels, center, decode, render, to_rgb
from simsiam_zoo.data.shards import ShardSet

_CELL = 96  # smaller views are enlarged to about this side, pixel by pixel
_GAP = 4
_HEAD = 18
_NAME = 110


def contact_sheet(
    shards: ShardSet,
    augmentation: Augmentation,
    size: int,
    crop: float = 1.0,
    seed: int = 0,
    rows: int = 8,
    epochs: int = 4,
) -> Image.Image:
    """Draw one.

    Args:
        shards: images are taken from them, evenly spaced.
        augmentation: draws the views.
        size: side of a view in pixels.
        crop: of the center view, as evaluation takes it.
        seed: of the run; the views are those that it would draw in its first epochs.
        rows: images.
        epochs: each gives a pair of views.

    Raises:
        DataError: one of the images is damaged.
    """
    ids = np.linspace(0, len(shards) - 1, min(rows, len(shards))).round().astype(int).tolist()
    zoom = max(1, round(_CELL / size))
    cell = size * zoom
    lefts = [_NAME] + [
        _NAME + cell + 4 * _GAP + pair * (2 * cell + 4 * _GAP) + view * (cell + _GAP)
        for pair in range(epochs)
        for view in (0, 1)
    ]
    sheet = Image.new("RGB", (lefts[-1] + cell + _GAP, _HEAD + len(ids) * (cell + _GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    titles = ["evaluation"] + [f"epoch {e}, x{v}" for e in range(1, epochs + 1) for v in (1, 2)]
    for left, title in zip(lefts, titles, strict=True):
        draw.text((left, 3), title[: max(1, cell // 6)], fill="black")
    draws = Draws(seed)
    for row, id in enumerate(ids):
        sample = shards.read(id)
        image = decode(sample.image)
        top = _HEAD + row * (cell + _GAP)
        draw.text((_GAP, top + 2), _caption(shards, sample.key, sample.label), fill="black")
        views = [to_rgb(center(image, size, crop))] + [
            _view(image, augmentation, draws, epoch, id, view, size)
            for epoch in range(epochs)
            for view in (0, 1)
        ]
        for left, pixels in zip(lefts, views, strict=True):
            shown = Image.fromarray(pixels).resize((cell, cell), Image.Resampling.NEAREST)
            sheet.paste(shown, (left, top))
    return sheet


def _view(
    image: Pixels,
    augmentation: Augmentation,
    draws: Draws,
    epoch: int,
    id: int,
    number: int,
    size: int,
) -> Pixels:
    extent = image.shape[0], image.shape[1]
    view = augmentation.sample(draws.at(epoch, id, number), number, extent)
    apply = getattr(augmentation, "apply", None)
    return to_rgb(render(image, view, size) if apply is None else apply(image, view, size))


def _caption(shards: ShardSet, key: str, label: int) -> str:
    name = "unlabelled"
    if label >= 0:
        known = shards.classes is not None and label < len(shards.classes)
        name = shards.classes[label] if known and shards.classes else f"label {label}"
    safe = "".join(c if c.isascii() else "?" for c in f"{name[:17]}\n{key[-17:]}")
    return safe
