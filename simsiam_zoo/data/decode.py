"""Encoded image → pixels, for files that nobody vouches for.

The first bytes choose among JPEG, PNG and WebP. The size is read from the header and bounded before
memory is spent. EXIF orientation is ignored, alpha dropped, of an animation the first frame taken.
"""

from __future__ import annotations

import io
import zlib
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from simsiam_zoo.errors import DataError

Pixels = NDArray[np.uint8]

MAX_PIXELS = 1 << 26
"""Largest image that is decoded: 8192 x 8192 (192 MiB as RGB); ImageNet's largest are below it."""


class ImageError(DataError):
    """One image is damaged. The text says how, not which: only the caller knows that."""


_PNG = b"\x89PNG\r\n\x1a\n"
_PLAIN_CHUNKS = {b"IHDR", b"IDAT", b"IEND"}
_GRAY, _RGB = 0, 2  # PNG color types


def decode(data: bytes | memoryview) -> Pixels:
    """Pixels [H, W, 3], RGB.

    Raises:
        ImageError: it is no JPEG, PNG or WebP, is damaged, or has more than `MAX_PIXELS` pixels.
    """
    return to_rgb(decode_any(data))


def decode_any(data: bytes | memoryview) -> Pixels:
    """`decode`, but an image stored as grey stays [H, W]: less work for all that follows."""
    head = bytes(data[:12])
    if head.startswith(_PNG):
        return _decode_png(data)
    if head.startswith(b"\xff\xd8\xff"):
        return _decode_pillow(data, "JPEG")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _decode_pillow(data, "WEBP")
    raise ImageError("it is no JPEG, PNG or WebP image" if len(data) else "the image is empty")


def to_rgb(image: Pixels) -> Pixels:
    """[H, W] → [H, W, 3]; an RGB image is returned as it is."""
    return cast(Pixels, cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)) if image.ndim == 2 else image


def _decode_png(data: bytes | memoryview) -> Pixels:
    depth, color, plain = _check_png(data)
    buffer = np.frombuffer(data, np.uint8)
    if plain and depth == 8 and color in (_GRAY, _RGB):
        flag = cv2.IMREAD_GRAYSCALE if color == _GRAY else cv2.IMREAD_COLOR_RGB
        image = cv2.imdecode(buffer, flag | cv2.IMREAD_IGNORE_ORIENTATION)
    elif depth == 16:  # Pillow keeps the high byte of RGB and saturates grey
        image = _scale_16_bit(cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED))
    else:
        return _decode_pillow(data, "PNG")
    if image is None:
        raise ImageError("the PNG image is damaged")
    return cast(Pixels, image)


def _check_png(data: bytes | memoryview) -> tuple[int, int, bool]:
    """(bit depth, color type, whether it holds only pixels), all checksums and the size checked."""
    view = memoryview(data)
    at, kinds = 8, []
    while at + 12 <= len(view):
        end = at + 12 + int.from_bytes(view[at : at + 4])
        if end > len(view):
            break
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise ImageError(f"the PNG image is damaged (checksum of the chunk at byte {at})")
        kinds.append(bytes(view[at + 4 : at + 8]))
        if kinds[-1] == b"IEND":
            break
        at = end
    if not kinds or kinds[0] != b"IHDR" or kinds[-1] != b"IEND":
        raise ImageError("the PNG image is cut off")
    header = view[16:29]
    _check_size(int.from_bytes(header[0:4]), int.from_bytes(header[4:8]))
    return header[8], header[9], _PLAIN_CHUNKS.issuperset(kinds)


def _scale_16_bit(image: NDArray[Any] | None) -> Pixels | None:
    """BGR(A) or grey, 16 bit → RGB or grey, 8 bit: round(v / 257)."""
    if image is None:
        return None
    scaled = ((image.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return scaled if scaled.ndim == 2 else np.ascontiguousarray(scaled[:, :, 2::-1])


def _decode_pillow(data: bytes | memoryview, form: str) -> Pixels:
    try:
        with Image.open(io.BytesIO(data), formats=(form,)) as image:
            _check_size(*image.size)
            image.load()
            if image.mode in ("1", "L", "LA"):
                return np.array(image.convert("L"))
            if image.mode == "P" and "transparency" in image.info:
                return np.array(image.convert("RGBA"))[:, :, :3]  # straight to RGB, Pillow warns
            return np.array(image.convert("RGB"))
    except ImageError:
        raise
    except Exception as error:  # what Pillow raises for damaged files is not listed anywhere
        raise ImageError(f"the {form} image is damaged: {error}") from None


def _check_size(width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise ImageError(f"an image of {width} x {height} pixels is refused (over {MAX_PIXELS:,})")
