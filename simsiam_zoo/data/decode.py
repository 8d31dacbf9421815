"""Encoded image → pixels, of untrusted files.

The first bytes choose among JPEG, PNG and WebP. The size is read from the header and bounded before
memory is spent, as are the scans of a JPEG and the chunks of a PNG. EXIF orientation is ignored,
alpha dropped, of an animation the first frame taken.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from simsiam_zoo.data.index import ImageError

Pixels = NDArray[np.uint8]

MAX_PIXELS = 1 << 26
"""Largest image that is decoded: 8192 x 8192 (192 MiB as RGB); ImageNet's largest are below it."""


MAX_SCANS = 100
"""Scans of a JPEG, each of which may touch every pixel; encoders make about ten."""

MAX_SCANNED = 1 << 30
"""Pixels x scans of a JPEG: sixteen scans of the largest image."""

MAX_CHUNKS = 1 << 16
"""Chunks of a PNG."""

_JPEG_SPACES = {1: "GRAY", 3: "RGB"}  # by components
_PNG = b"\x89PNG\r\n\x1a\n"
_PLAIN_CHUNKS = {b"IHDR", b"IDAT", b"IEND"}
_GRAY, _RGB = 0, 2  # PNG color types
_CHANNELS = {_GRAY: 1, _RGB: 3, 3: 1, 4: 2, 6: 4}  # by color type
_ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # fmt: skip
"""(first column, first row, step across, step down) of each pass of an interlaced PNG."""
_PIECE = 1 << 20  # bytes inflated at once


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
        return _decode_jpeg(data)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        _check_webp(bytes(data[12:30]))
        return _decode_pillow(data, "WEBP")
    raise ImageError("it is no JPEG, PNG or WebP image" if len(data) else "the image is empty")


def to_rgb(image: Pixels) -> Pixels:
    """[H, W] → [H, W, 3]; an RGB image is returned as it is."""
    return cast(Pixels, cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)) if image.ndim == 2 else image


def _decode_jpeg(data: bytes | memoryview) -> Pixels:
    """By libjpeg-turbo, with its exact inverse DCT and smooth upsampling: Pillow's pixels."""
    frame = _jpeg_frame(data)
    # A marker cannot lie in the compressed pixels, only in a thumbnail's: never too few.
    scans = 1 if frame and frame.single else bytes(data).count(b"\xff\xda")
    if frame is not None and frame.components in _JPEG_SPACES:
        _check_size(frame.width, frame.height)
        _check_scans(frame.width, frame.height, scans)
        space = _JPEG_SPACES[frame.components]
        try:
            pixels: Pixels = simplejpeg.decode_jpeg(data, space, strict=True)
        except ValueError:  # at a mere warning too, and at rare samplings: Pillow decides
            return _decode_pillow(data, "JPEG", scans)
        return pixels[:, :, 0] if space == "GRAY" else pixels
    return _decode_pillow(data, "JPEG", scans)  # it knows more kinds, and what is wrong


class _Frame(NamedTuple):
    width: int
    height: int
    components: int
    single: bool  # one scan holds all, and no decoder reads another


def _jpeg_frame(data: bytes | memoryview) -> _Frame | None:
    """What the headers before the first scan say; None where they are damaged."""
    at, frame, sequential = 2, None, False
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == 0xDA:
            every = frame is not None and data[at + 4] == frame.components
            return frame and frame._replace(single=sequential and every)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, components = struct.unpack_from(">HHB", data, at + 5)
            frame, sequential = _Frame(width, height, components, False), marker <= 0xC1
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def _decode_png(data: bytes | memoryview) -> Pixels:
    depth, color, plain, pixels = _check_png(data)
    buffer = np.frombuffer(data, np.uint8)
    if plain and depth == 8 and color in (_GRAY, _RGB):
        flag = cv2.IMREAD_GRAYSCALE if color == _GRAY else cv2.IMREAD_COLOR_RGB
        image = _imdecode(buffer, flag | cv2.IMREAD_IGNORE_ORIENTATION)
    elif depth == 16:  # Pillow keeps the high byte of RGB and saturates grey
        image = _scale_16_bit(_imdecode(buffer, cv2.IMREAD_UNCHANGED))
    else:
        _check_rows(data, pixels)
        return _decode_pillow(data, "PNG")
    if image is None:
        raise ImageError("the PNG image is damaged")
    return cast(Pixels, image)


class _Png(NamedTuple):
    depth: int
    color: int
    plain: bool  # it holds only pixels
    pixels: list[tuple[int, int]]  # where the compressed ones lie: first byte and end


def _check_png(data: bytes | memoryview) -> _Png:
    """What its header says, all checksums and the size checked."""
    view = memoryview(data)
    at, first, last, kinds, pixels = 8, b"", b"", set(), []
    for _ in range(MAX_CHUNKS):
        if at + 12 > len(view):
            break
        end = at + 12 + int.from_bytes(view[at : at + 4])
        if end > len(view):
            break
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise ImageError(f"the PNG image is damaged (checksum of the chunk at byte {at})")
        last = bytes(view[at + 4 : at + 8])
        first = first or last
        kinds.add(last)
        if last == b"IDAT":
            pixels.append((at + 8, end - 4))
        if last == b"IEND":
            break
        at = end
    else:
        raise ImageError(f"a PNG image of more than {MAX_CHUNKS:,} chunks is refused")
    if first != b"IHDR" or last != b"IEND":
        raise ImageError("the PNG image is cut off")
    header = view[16:29]
    _check_size(int.from_bytes(header[0:4]), int.from_bytes(header[4:8]))
    return _Png(header[8], header[9], _PLAIN_CHUNKS.issuperset(kinds), pixels)


def _check_rows(data: bytes | memoryview, pixels: list[tuple[int, int]]) -> None:
    """Refuse a PNG without all of its rows: Pillow would fill them with black."""
    view = memoryview(data)
    width, height = (int.from_bytes(view[at : at + 4]) for at in (16, 20))
    bits = view[24] * _CHANNELS.get(view[25], 1)
    passes = _ADAM7 if view[28] else ((0, 0, 1, 1),)
    needed = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        needed += rows * (1 + (columns * bits + 7) // 8) if columns > 0 and rows > 0 else 0
    inflate, found = zlib.decompressobj(), 0
    try:
        for begin, end in pixels:
            rest: bytes | memoryview = view[begin:end]
            while rest and found < needed:
                found += len(inflate.decompress(rest, _PIECE))
                rest = inflate.unconsumed_tail
    except zlib.error as error:
        raise ImageError(f"the PNG image is damaged: {error}") from None
    if found < needed:
        raise ImageError("the PNG image is cut off: rows are missing")


def _imdecode(buffer: NDArray[np.uint8], flags: int) -> NDArray[Any] | None:
    try:
        return cv2.imdecode(buffer, flags)
    except cv2.error:
        return None


def _scale_16_bit(image: NDArray[Any] | None) -> Pixels | None:
    """BGR(A) or grey, 16 bit → RGB or grey, 8 bit: round(v / 257)."""
    if image is None:
        return None
    scaled = ((image.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return scaled if scaled.ndim == 2 else np.ascontiguousarray(scaled[:, :, 2::-1])


def _check_webp(header: bytes) -> None:
    """Check the size that the first chunk states: Pillow allocates an animation when it opens it.

    (RFC 9649, sections 2.5 to 2.7.)
    """
    kind, body = header[:4], header[8:]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(body[at : at + 3], "little") for at in (4, 7))
    elif kind == b"VP8L":
        packed = int.from_bytes(body[1:5], "little")
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    else:
        width, height = (int.from_bytes(body[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    _check_size(width, height)


def _decode_pillow(data: bytes | memoryview, form: str, scans: int = 1) -> Pixels:
    try:
        with Image.open(io.BytesIO(data), formats=(form,)) as image:
            _check_size(*image.size)
            _check_scans(*image.size, scans)
            image.load()
            if image.mode in ("1", "L", "LA"):
                return np.array(image.convert("L"))
            if image.mode == "P" and "transparency" in image.info:
                return np.array(image.convert("RGBA"))[:, :, :3]  # straight to RGB, Pillow warns
            return np.array(image.convert("RGB"))
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # what Pillow raises for damaged files is not listed anywhere
        raise ImageError(f"the {form} image is damaged: {error}") from None


def _check_size(width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise ImageError(f"an image of {width} x {height} pixels is refused (over {MAX_PIXELS:,})")


def _check_scans(width: int, height: int, scans: int) -> None:
    if scans > MAX_SCANS or scans * width * height > MAX_SCANNED:
        raise ImageError(f"a JPEG image of {scans} scans of {width} x {height} pixels is refused")
