"""What is stored of an image: its own bytes, or a smaller image made of it."""

from __future__ import annotations

import io

from PIL import Image

from simsiam_zoo.data.decode import Pixels, decode_any

JPEG_QUALITY = 95
"""Of images that were resized; Pillow's usual chroma subsampling (4:2:0)."""


def prepare(data: bytes, resize_short: int | None = None) -> tuple[str, bytes]:
    """Decode an image to check it, and give what is to be stored.

    Args:
        data: a JPEG, PNG or WebP.
        resize_short: an image whose short side is longer is shrunk to it (bicubic, antialiased):
            a PNG stays one, others become JPEG. Any other image keeps its bytes.

    Returns:
        ("jpg" | "png" | "webp", the bytes): what the bytes are, whatever the file was called.

    Raises:
        DataError: it is damaged, too large, or of another format.
    """
    pixels = decode_any(data)
    form = "png" if data[:1] == b"\x89" else "webp" if data[:4] == b"RIFF" else "jpg"
    if resize_short is None or min(pixels.shape[:2]) <= resize_short:
        return form, data
    file = io.BytesIO()
    if form == "png":
        _shrink(pixels, resize_short).save(file, "PNG")
        return form, file.getvalue()
    _shrink(pixels, resize_short).save(file, "JPEG", quality=JPEG_QUALITY)
    return "jpg", file.getvalue()


def _shrink(pixels: Pixels, short: int) -> Image.Image:
    height, width = pixels.shape[:2]
    scale = short / min(height, width)
    size = max(short, round(width * scale)), max(short, round(height * scale))
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
