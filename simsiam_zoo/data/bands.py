"""Images of 1 to 16 channels as NumPy arrays (`.npy`) and TIFFs, of 8 or 16 bits: untrusted files.

Sizes are read from the header and bounded before memory is spent; nothing is unpickled.
"""

from __future__ import annotations

import io
import logging
import math
import zlib
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from simsiam_zoo.data.index import ImageError
from simsiam_zoo.errors import PluginError

MAX_CHANNELS = 16

MAX_BYTES = 3 << 26
"""Of the pixels of one image: those of the largest RGB image that is decoded."""

_NPY = b"\x93NUMPY"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAX_PAGES = 64
_MAX_SEGMENTS = 1 << 16
_DEFLATE = (8, 32946)  # TIFF's numbers of a compression
_PACKED = (1, 5, *_DEFLATE)  # none, LZW and deflate


def band_format(head: bytes) -> str:
    """What the first bytes of a file are those of: npy, tiff, or an empty text for others."""
    if head.startswith(_NPY):
        return "npy"
    return "tiff" if head.startswith(_TIFF) else ""


def read_bands(data: bytes | memoryview) -> NDArray[Any]:
    """Pixels [H, W, C] of an array or a TIFF, as stored: uint8 or uint16.

    Raises ImageError where it is damaged, too large or of another kind; PluginError where it is a
    TIFF and tifffile is not installed.
    """
    if not (form := band_format(bytes(data[:8]))):
        raise ImageError("it is no array and no TIFF")
    try:
        pixels = _read_npy(data) if form == "npy" else _read_tiff(data)
    except (ImageError, PluginError, MemoryError):
        raise
    except Exception as error:  # what the readers raise for damaged files is listed nowhere
        raise ImageError(f"the {form} image is damaged: {error}") from None
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _checked(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, int, int]:
    """The shape as (H, W, C). Raises ImageError for what is no image, or too large a one."""
    whole = (*shape, 1) if len(shape) == 2 else shape
    if len(whole) != 3 or not 1 <= whole[2] <= MAX_CHANNELS:
        raise ImageError(
            f"an array {list(shape)} is no image of 1 to {MAX_CHANNELS} channels: [H, W, C]"
        )
    if dtype.kind != "u" or dtype.itemsize > 2:
        raise ImageError(f"its values are {dtype}: those that are read are uint8 and uint16")
    if not 0 < math.prod(whole) * dtype.itemsize <= MAX_BYTES:
        raise ImageError(f"an image {list(whole)} is refused (over {MAX_BYTES:,} bytes)")
    return whole[0], whole[1], whole[2]


def _read_npy(data: bytes | memoryview) -> NDArray[Any]:
    file = io.BytesIO(data)
    version = npy.read_magic(file)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = header(file)
    whole = _checked(shape, dtype)
    at, size = file.tell(), math.prod(shape) * dtype.itemsize
    if len(data) != at + size:
        raise ImageError(f"the array is damaged: {len(data) - at:,} bytes, not {size:,}")
    file.seek(0)
    pixels: NDArray[Any] = np.load(file, allow_pickle=False)
    return pixels.reshape(whole)


def _read_tiff(data: bytes | memoryview) -> NDArray[Any]:
    """Bands may be samples of a pixel, planes, or pages of one size."""
    if find_spec("tifffile") is None:
        raise PluginError(
            "TIFF images need the package tifffile",
            "Install it with: pip install 'simsiam-zoo[tiff]'.",
        )
    import tifffile

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it warns of is raised
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        with suppress(IndexError):
            tiff.pages[_MAX_PAGES]
            raise ImageError(f"a TIFF of over {_MAX_PAGES} pages is refused")
        pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage)]
        bands = [_read_page(page, len(pages)) for page in pages]
    if len({page.shape[:2] for page in bands}) != 1:
        raise ImageError("the pages of the TIFF differ in size")
    pixels = bands[0] if len(bands) == 1 else np.concatenate(bands, axis=2)
    _checked(pixels.shape, pixels.dtype)
    return pixels


def _read_page(page: Any, pages: int) -> NDArray[Any]:
    """One page, [H, W, C]; all `pages` of the file are of its size."""
    shape = page.imagelength, page.imagewidth, page.samplesperpixel
    if page.imagedepth != 1 or page.dtype is None or page.photometric == 3:
        raise ImageError("the TIFF is a volume, or has a palette or values of no type")
    _checked((shape[0], shape[1] * pages, shape[2]), page.dtype)
    if int(page.compression) not in _PACKED:
        raise ImageError(f"a TIFF compressed by {page.compression!r} is not read")
    _check_segments(page, math.prod(shape) * page.dtype.itemsize)
    pixels: NDArray[Any] = page.asarray()
    planes = page.planarconfig == 2 and shape[2] > 1
    return np.moveaxis(pixels, 0, 2) if planes else pixels.reshape(shape)


def _check_segments(page: Any, size: int) -> None:
    """Refuse a page that unpacks to more than `size` bytes and what may pad its last tiles."""
    handle, most = page.parent.filehandle, 4 * size + (1 << 20)
    if len(page.dataoffsets) > _MAX_SEGMENTS or sum(page.databytecounts) > most:
        raise ImageError("the TIFF is damaged: its strips do not fit its size")
    tile = page.tilewidth * page.tilelength * page.samplesperpixel * page.dtype.itemsize
    if page.is_tiled and tile > most:
        raise ImageError("the TIFF is damaged: its tiles do not fit its size")
    if int(page.compression) not in _DEFLATE:
        return
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        handle.seek(offset)
        most -= len(zlib.decompressobj().decompress(handle.read(count), most + 1))
        if most < 0:
            raise ImageError("the TIFF is refused: it unpacks to more than its size")
