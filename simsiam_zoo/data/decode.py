"""Encoded image → pixels, of untrusted files.

The first bytes choose among JPEG, PNG, WebP and the kinds of `bands`. The size is read from the
header and bounded before memory is spent, as are the scans of a JPEG and the chunks of a PNG. EXIF
orientation is ignored, alpha dropped, of an animation the first frame taken. `decode_as` reads
other channels than three.
"""

from __future__ import annotations

import io
import re
import zlib
from typing import Any, cast

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from simsiam_zoo.data.bands import band_format, read_bands
from simsiam_zoo.data.index import ImageError
from simsiam_zoo.data.scan import image_format

Pixels = NDArray[np.uint8]

MAX_PIXELS = 1 << 26
"""Largest image that is decoded: 8192 x 8192 (192 MiB as RGB); ImageNet's largest are below it."""

MAX_SCANS = 100
"""Scans of a JPEG, each of which may touch every pixel; encoders make about ten."""

MAX_SCANNED = 1 << 30
"""Pixels x scans of a JPEG: sixteen scans of the largest image."""

MAX_CHUNKS = 1 << 16
"""Chunks of a PNG."""

_SCAN = re.compile(rb"\xff\xda\0(\x06\0|\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
"""How a scan of a JPEG begins: its marker, its length and its channels, which must fit. The marker
alone is found many times in the video that phones write behind a picture."""

_JPEG_SPACES = {"Gray": "GRAY", "YCbCr": "RGB", "RGB": "RGB"}
_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_GRAY = (0, 4)  # PNG color types, without alpha and with it


def decode(data: bytes | memoryview) -> Pixels:
    """Pixels [H, W, 3], RGB.

    Raises:
        ImageError: it is no JPEG, PNG or WebP, is damaged, or has more than `MAX_PIXELS` pixels.
    """
    return to_rgb(decode_any(data))


def decode_any(data: bytes | memoryview) -> Pixels:
    """`decode`, but an image stored as grey stays [H, W]: less work for all that follows."""
    head = bytes(data[:12])
    form = image_format(head)
    if form == "png":
        return _decode_png(data)
    if form == "jpg":
        return _decode_jpeg(data)
    if form == "webp":
        _check_webp(bytes(data[12:30]))
        return _decode_pillow(data, "WEBP")
    if band_format(head):
        return _eight_bits(_of_channels(read_bands(data), 3))
    raise ImageError("it is no JPEG, PNG or WebP image" if len(data) else "the image is empty")


def decode_as(data: bytes | memoryview, channels: int) -> Pixels:
    """Pixels of images that have `channels`: for three as `decode_any` gives them.

    Else uint16 [H, W, C], or [H, W] for one channel: 65535 is the brightest, of 8 bits too.

    Raises:
        ImageError: as by `decode`, and where the image has other channels.
        PluginError: it is a TIFF, and tifffile is not installed.
    """
    if channels == 3:
        return decode_any(data)
    pixels = _of_channels(as_stored(data), channels)
    deep = pixels if pixels.dtype == np.uint16 else pixels.astype(np.uint16) * 257
    return cast(Pixels, deep[:, :, 0] if channels == 1 else deep)


def as_stored(data: bytes | memoryview) -> NDArray[Any]:
    """Pixels [H, W, C] with the channels and the bits that they are stored with; alpha is one."""
    head = bytes(data[:12])
    if band_format(head):
        return read_bands(data)
    is_png = image_format(head) == "png"
    pixels = _decode_png(data, stored=True) if is_png else decode_any(data)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _of_channels(pixels: NDArray[Any], channels: int) -> NDArray[Any]:
    if (found := pixels.shape[2]) != channels:
        raise ImageError(f"it has {found} channels, not the {channels} of data.channels")
    return pixels


def _eight_bits(pixels: NDArray[Any]) -> Pixels:
    """uint16 → uint8: round(v / 257)."""
    if pixels.dtype == np.uint8:
        return cast(Pixels, pixels)
    return ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def to_rgb(image: Pixels) -> Pixels:
    """[H, W] → [H, W, 3]; an RGB image is returned as it is."""
    return cast(Pixels, cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)) if image.ndim == 2 else image


def _decode_jpeg(data: bytes | memoryview) -> Pixels:
    """By libjpeg-turbo, with its exact inverse DCT and smooth upsampling: Pillow's pixels."""
    scans = sum(1 for _ in _SCAN.finditer(data))  # a thumbnail's too: never too few
    try:
        height, width, stored, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        _check_size(width, height)
        _check_scans(width, height, scans)
        space = _JPEG_SPACES[stored]
        pixels: Pixels = simplejpeg.decode_jpeg(data, space, strict=True)
    except (ValueError, KeyError):  # at a mere warning too, at CMYK and rare samplings
        return _decode_pillow(data, "JPEG", scans)
    return pixels[:, :, 0] if space == "GRAY" else pixels


def _decode_png(data: bytes | memoryview, stored: bool = False) -> Pixels:
    """By OpenCV, which is given the pixels alone: what lies beside them could be a bomb."""
    pixels = np.frombuffer(_pixel_chunks(memoryview(data)), np.uint8)
    deep, gray = data[24] == 16, data[25] in _GRAY
    flags = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR_RGB
    try:
        image = cv2.imdecode(pixels, cv2.IMREAD_UNCHANGED if deep or stored else flags)
    except cv2.error:
        image = None
    if image is None:
        raise ImageError("the PNG image is damaged, or rows are missing")
    if stored:  # BGR(A) or grey; grey with alpha comes as BGRA
        if image.ndim == 2:
            return cast(Pixels, image)
        order = [0, 3] if gray else [2, 1, 0, 3][: image.shape[2]]
        return cast(Pixels, np.ascontiguousarray(image[:, :, order]))
    if deep:
        image = _eight_bits(image)
        if image.ndim == 3:
            return np.ascontiguousarray(image[:, :, 0] if gray else image[:, :, 2::-1])
    return cast(Pixels, image)


def _pixel_chunks(data: memoryview) -> bytes | memoryview:
    """A PNG without the chunks beside its pixels; all checksums and the size are checked."""
    at, count, first, last, kept = 8, 0, b"", b"", [data[:8]]
    while last != b"IEND":
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if end > len(data):
            raise ImageError("the PNG image is cut off")
        if (count := count + 1) > MAX_CHUNKS:
            raise ImageError(f"a PNG image of more than {MAX_CHUNKS:,} chunks is refused")
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            raise ImageError(f"the PNG image is damaged (checksum of the chunk at byte {at})")
        last = bytes(data[at + 4 : at + 8])
        first = first or last
        if last in _PIXEL_CHUNKS:
            kept.append(data[at:end])
        at = end
    if first != b"IHDR":
        raise ImageError("the PNG image is damaged (it has no header)")
    _check_size(int.from_bytes(data[16:20]), int.from_bytes(data[20:24]))
    return data if len(kept) == count + 1 else b"".join(kept)


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
