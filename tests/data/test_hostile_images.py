"""Images made to harm: bombs, headers that lie, damage anywhere."""

from __future__ import annotations

import io
import pickle
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from made_images import encode
from PIL import Image

from simsiam_zoo.data.decode import MAX_PIXELS, decode, decode_any
from simsiam_zoo.data.image import center
from simsiam_zoo.errors import DataError

pytestmark = pytest.mark.usefixtures("memory_stays_bounded")


def png(
    width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 8, color: int = 2
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in ((b"IHDR", header), *chunks, (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(kind + body))
        parts.append(struct.pack(">I", len(body)) + kind + body + check)
    return b"".join(parts)


def test_images_that_claim_too_much_are_refused_before_memory_is_spent():
    pixels = zlib.compress(bytes(1 << 20))
    bombs = [png(100_000, 100_000, (b"IDAT", pixels), color=color) for color in (0, 2, 3, 6)]
    bombs.append(png(30_000, 30_000, (b"tRNS", bytes(6)), (b"IDAT", pixels)))
    bombs.append(png(0, 5, (b"IDAT", pixels)))
    jpeg = bytearray(encode(np.zeros((8, 8, 3), np.uint8), "JPEG"))
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 65_000, 65_000)
    webp = bytearray(encode(np.zeros((8, 8, 3), np.uint8), "WEBP", lossless=True))
    webp[21:25] = struct.pack("<I", (16_382) | (16_382 << 14))
    for bomb in (*bombs, bytes(jpeg), bytes(webp)):
        with pytest.raises(DataError):
            decode(bomb)


def test_inflating_text_beside_the_pixels_costs_nothing():
    text = b"k\0\0" + zlib.compress(bytes(400 << 20), 9)
    pixel = zlib.compress(bytes(4))
    for beside in ((b"zTXt", text), (b"iCCP", b"k\0\0" + text[3:])):
        assert decode(png(1, 1, beside, (b"IDAT", pixel))).shape == (1, 1, 3)
        deep = png(1, 1, beside, (b"IDAT", zlib.compress(bytes(7))), depth=16)
        assert decode(deep).shape == (1, 1, 3)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_image_is_damage(form):
    whole = encode(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8), form)
    for cut in (*range(0, 40), len(whole) // 2, len(whole) * 9 // 10, len(whole) - 8):
        with pytest.raises(DataError):
            decode(whole[:cut])


@pytest.mark.parametrize("level", [0, 9])
def test_a_flipped_byte_in_a_png_never_passes_as_an_image(level):
    whole = encode(np.arange(64, dtype=np.uint8).reshape(8, 8), "PNG", compress_level=level)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        with pytest.raises(DataError):
            decode(bytes(damaged))


def test_other_formats_are_refused_whatever_their_name():
    gif = encode(np.zeros((4, 4), np.uint8), "GIF")
    for data in (gif, pickle.dumps(print), b"", b"<svg/>"):
        with pytest.raises(DataError, match=r"no JPEG, PNG or WebP|empty"):
            decode(data)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize(("depth", "color"), [(8, 2), (16, 2), (16, 0), (8, 3)])
def test_no_text_nor_profile_is_inflated_by_any_decoder(kind, depth, color):
    """Passed over: the fixture sees to it that 200 MiB never lie in memory."""
    bomb = zlib.compress(bytes(200 << 20), 9)
    body = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"k\0\0"}[kind] + bomb
    channels = 3 if color == 2 else 1
    row = zlib.compress(bytes(1 + channels * depth // 8))
    palette = ((b"PLTE", bytes(3)),) if color == 3 else ()
    data = png(1, 1, (kind, body), *palette, (b"IDAT", row), depth=depth, color=color)
    assert decode(data).shape == (1, 1, 3)


def test_a_png_of_millions_of_chunks_is_refused_before_they_are_counted():
    chunk = b"\0\0\0\0tEXt" + struct.pack(">I", zlib.crc32(b"tEXt"))
    start = png(1, 1)[:33]
    with pytest.raises(DataError, match="more than 65,536 chunks"):
        decode(start + chunk * 500_000)


def progressive(side: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are `scans`."""
    image = encode(np.full((side, side), 99, np.uint8), "JPEG", progressive=True)
    starts = [found.start() for found in re.finditer(b"\xff\xda", image)]
    last = image[starts[-1] : -2]
    return image[:-2] + last * (scans - len(starts)) + image[-2:]


def test_a_jpeg_of_many_scans_is_refused_before_any_is_decoded():
    assert decode(progressive(64, 20)).shape == (64, 64, 3)
    for bomb in (progressive(64, 101), progressive(64, 20_000), progressive(4096, 70)):
        with pytest.raises(DataError, match="scans of"):
            decode(bomb)


def test_what_lies_in_the_thumbnail_of_a_jpeg_is_none_of_its_scans():
    app = b"\xff\xe1" + struct.pack(">H", 2 + 2 * 90) + b"\xff\xda" * 90
    image = encode(np.full((8, 8, 3), 99, np.uint8), "JPEG")
    assert decode(image[:2] + app + image[2:]).shape == (8, 8, 3)


def test_a_video_behind_a_picture_is_none_of_its_scans():
    """As phones write it; random bytes hold the marker of a scan once in 64 KiB."""
    image = encode(np.full((8, 8, 3), 99, np.uint8), "JPEG")
    assert decode(image + np.random.default_rng(0).bytes(8 << 20)).shape == (8, 8, 3)


def webp_canvas(width: int, height: int) -> bytes:
    """An animation that states a canvas, and holds one small frame."""
    frames = [Image.fromarray(np.full((8, 8, 3), v, np.uint8)) for v in (0, 255)]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    data = bytearray(file.getvalue())
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


LIMITED = """
import resource, sys
from simsiam_zoo.data.decode import decode
from simsiam_zoo.errors import DataError
decode(bytes.fromhex(sys.argv[1]))  # whatever is loaded on first use
here = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (here + (96 << 20), -1))
for data in sys.argv[2:]:
    try:
        decode(bytes.fromhex(data))
    except DataError as error:
        assert "pixels" in str(error), error
    else:
        raise SystemExit("decoded")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux")
def test_no_decoder_reserves_memory_for_a_size_that_is_refused():
    """Not even address space, where a canvas is allocated and never touched."""
    bombs = [webp_canvas(16_000, 16_000), webp_canvas(1 << 24, 255)]
    lossy = bytearray(encode(np.zeros((8, 8, 3), np.uint8), "WEBP"))
    at = lossy.index(b"\x9d\x01\x2a") + 3
    lossy[at : at + 4] = struct.pack("<HH", 16_383, 16_383)
    lossless = bytearray(encode(np.zeros((8, 8, 3), np.uint8), "WEBP", lossless=True))
    lossless[21:25] = struct.pack("<I", 16_382 | 16_382 << 14)
    jpeg = bytearray(encode(np.zeros((8, 8, 3), np.uint8), "JPEG"))
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 65_000, 65_000)
    wide = png(1 << 30, 1, (b"IDAT", zlib.compress(bytes(9))))
    all_bombs = [*bombs, bytes(lossy), bytes(lossless), bytes(jpeg), wide]
    good = webp_canvas(8, 8)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, good.hex(), *(bomb.hex() for bomb in all_bombs)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_an_image_costs_a_known_amount_of_memory_for_each_pixel():
    """A quarter of the largest, and as hard: progressive, so that every coefficient is kept."""
    make = """
import numpy, sys
from PIL import Image
image = Image.fromarray(numpy.full((4096, 4096, 3), 77, numpy.uint8))
image.save(sys.stdout.buffer, "JPEG", progressive=True, subsampling=0)
"""
    take = """
import re, sys
from simsiam_zoo.data.decode import decode
peak = lambda: int(re.findall(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[0])
before = peak()
assert decode(sys.stdin.buffer.read()).shape == (4096, 4096, 3)
print(peak() - before)
"""
    made = subprocess.run([sys.executable, "-c", make], capture_output=True, check=True)
    done = subprocess.run([sys.executable, "-c", take], input=made.stdout, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert MAX_PIXELS == 4096 * 4096 * 4
    per_pixel = int(done.stdout) * 1024 / 4096**2  # bytes, the image's own 3 among them
    assert 3 < per_pixel < 15


def test_damage_never_ends_the_process():
    """Every kind of file with bytes changed at random: an image or an error, nothing else."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    wholes = [
        encode(pixels, "JPEG"),
        encode(pixels, "JPEG", progressive=True),
        encode(pixels, "WEBP"),
        encode(pixels, "WEBP", lossless=True),
        encode(pixels[:, :, 0], "JPEG"),
    ]
    refused = 0
    for _ in range(600):
        data = bytearray(wholes[rng.integers(len(wholes))])
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(256)
        try:
            image = decode(bytes(data))
        except DataError:
            refused += 1
        else:
            assert image.ndim == 3
            assert image.shape[0] * image.shape[1] <= MAX_PIXELS
    assert 50 < refused < 550


def png_of(width: int, height: int, color: int, channels: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header = size + bytes([8 if channels else 1, color, 0, 0, 0])
    palette = chunk(b"PLTE", bytes(range(256)) * 3) if color == 3 else b""
    parts = chunk(b"IHDR", header) + palette + chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


@pytest.mark.parametrize(("color", "channels"), [(0, 1), (2, 3), (3, 1), (4, 2), (6, 4)])
def test_a_png_without_its_last_rows_is_damaged_not_black(color, channels):
    rows = bytes([0] + [200] * (40 * channels)) * 40
    assert decode_any(png_of(40, 40, color, channels, rows)).shape[:2] == (40, 40)
    with pytest.raises(DataError, match=r"damaged|rows are missing"):
        decode_any(png_of(40, 40, color, channels, rows[: len(rows) // 2]))


def test_an_interlaced_png_is_whole_or_damaged():
    """8 x 8 RGBA in the passes of Adam7: 1x1, 1x1, 2x1, 2x2, 4x2, 4x4 and 8x4 pixels."""
    size = sum(
        rows * (1 + 4 * n)
        for n, rows in zip((1, 1, 2, 2, 4, 4, 8), (1, 1, 1, 2, 2, 4, 4), strict=True)
    )
    assert size == 271
    for length in (size, size - 1):
        png = bytearray(png_of(8, 8, 6, 4, bytes(length)))
        png[28] = 1
        png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
        if length == size:
            assert decode_any(bytes(png)).shape == (8, 8, 3)
        else:
            with pytest.raises(DataError, match="rows are missing"):
                decode_any(bytes(png))


@pytest.mark.usefixtures("memory_stays_bounded")
@pytest.mark.parametrize("size", [64, 224])
def test_what_a_long_image_becomes_is_bounded_not_only_the_image(size):
    """Resized whole, a picture of a few kilobytes would fill gigabytes."""
    long = np.zeros((1, 4_000_000), np.uint8)
    long[0, 1_999_900:2_000_100] = 200
    for image in (long, long.T.copy()):
        view = center(image, size, 0.875)
        assert view.shape == (size, size)
        assert (view == 200).all()


def test_the_middle_of_a_long_image_is_that_of_the_whole(monkeypatch):
    from simsiam_zoo.data import image as module

    wave = np.sin(np.arange(3000) / 40)[None, :, None] * np.cos(np.arange(50) / 9)[:, None, None]
    long = np.repeat(np.rint(127 + 120 * wave), 3, axis=2).astype(np.uint8)
    for picture in (long, long.transpose(1, 0, 2).copy()):
        for size in (32, 64, 96):  # smaller and larger
            whole = center(picture, size).astype(int)
            with monkeypatch.context() as context:
                context.setattr(module, "MAX_RESIZED", 3 * size**2)
                assert np.abs(center(picture, size) - whole).max() <= 4
