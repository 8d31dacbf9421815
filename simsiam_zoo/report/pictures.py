"""Images small enough to lie inside a page, as data URIs."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from simsiam_zoo.data.decode import Pixels, decode
from simsiam_zoo.data.image import center, resize
from simsiam_zoo.data.shards import ShardSet

_QUALITY = 80


@dataclass(frozen=True)
class Sprite:
    """Many small images in one.

    Attributes:
        uri: `data:image/...`.
        tile: side of one in pixels.
        columns: in a row.
        rows: of them.
    """

    uri: str
    tile: int
    columns: int
    rows: int


def picture(shards: ShardSet, id: int, crop: float, most: int = 96) -> str:
    """The part of an image that evaluation looks at, at most `most` px wide, as a data URI.

    Raises:
        DataError: the image is damaged.
    """
    return data_uri(_view(shards, id, crop, most))


def sprite(shards: ShardSet, ids: Sequence[int], crop: float, tile: int = 32) -> Sprite:
    """All of the images in one, row by row. Raises DataError."""
    columns = max(1, math.isqrt(max(len(ids) - 1, 0)) + 1)
    rows = max(1, -(-len(ids) // columns))
    sheet: Pixels = np.zeros((rows * tile, columns * tile, 3), np.uint8)
    for place, id in enumerate(ids):
        top, left = place // columns * tile, place % columns * tile
        view = resize(_view(shards, id, crop, tile), tile, tile)
        sheet[top : top + tile, left : left + tile] = view
    return Sprite(data_uri(sheet), tile, columns, rows)


def data_uri(pixels: Pixels) -> str:
    """[H, W, 3] as a data URI: PNG or WebP, whichever is smaller."""
    image = Image.fromarray(pixels)
    files = []
    for kind, options in (("PNG", {"optimize": True}), ("WEBP", {"quality": _QUALITY})):
        file = io.BytesIO()
        image.save(file, kind, **options)
        files.append((len(file.getvalue()), kind.lower(), file.getvalue()))
    _, kind, content = min(files)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _view(shards: ShardSet, id: int, crop: float, most: int) -> Pixels:
    pixels = decode(shards.read(id).image)
    return center(pixels, min(most, *pixels.shape[:2]), crop)
