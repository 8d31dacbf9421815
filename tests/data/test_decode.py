from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from made_images import encode
from PIL import Image

from simsiam_zoo.data.decode import decode, decode_any, to_rgb

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (9, 7, 3), dtype=np.uint8)
GRAY = RNG.integers(0, 256, (9, 7), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (9, 7, 1), dtype=np.uint8)


def file_of(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def three(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=2)


def cv2_png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


WIDE_GRAY = RNG.integers(0, 65536, (9, 7), dtype=np.uint16)
WIDE_RGBA = RNG.integers(0, 65536, (9, 7, 4), dtype=np.uint16)
PALETTE = Image.fromarray(RGB).quantize(16)
BITS = GRAY > 127


def with_palette_alpha() -> bytes:
    return file_of(PALETTE, "PNG", transparency=bytes(range(0, 160, 10)))


EXACT = {
    "grey": (encode(GRAY), three(GRAY)),
    "rgb": (encode(RGB), RGB),
    "rgb with text": (
        file_of(Image.fromarray(RGB), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0", dpi=(72, 72)),
        RGB,
    ),
    "grey and alpha": (encode(np.dstack([GRAY, ALPHA])), three(GRAY)),
    "rgb and alpha": (encode(np.dstack([RGB, ALPHA])), RGB),
    "palette": (file_of(PALETTE, "PNG"), np.asarray(PALETTE.convert("RGB"))),
    "palette with alpha": (with_palette_alpha(), np.asarray(PALETTE.convert("RGB"))),
    "transparent color": (file_of(Image.fromarray(RGB), "PNG", transparency=(1, 2, 3)), RGB),
    "one bit": (file_of(Image.fromarray(BITS), "PNG"), three(BITS * np.uint8(255))),
    "grey of 16 bits": (cv2_png(WIDE_GRAY), three(np.rint(WIDE_GRAY / 257))),
    "rgb of 16 bits": (cv2_png(WIDE_RGBA[:, :, 2::-1].copy()), np.rint(WIDE_RGBA[:, :, :3] / 257)),
    "rgba of 16 bits": (
        cv2_png(WIDE_RGBA[:, :, [2, 1, 0, 3]]),
        np.rint(WIDE_RGBA[:, :, :3] / 257),
    ),
    "webp": (encode(RGB, "WEBP", lossless=True), RGB),
    "webp with alpha": (
        encode(np.dstack([RGB, ALPHA]), "WEBP", lossless=True, exact=True),
        RGB,
    ),
}


@pytest.mark.parametrize("case", EXACT)
def test_every_kind_of_image_becomes_rgb(case):
    data, expected = EXACT[case]
    for form in (data, memoryview(data)):
        decoded = decode(form)
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, expected)
    raw = decode_any(data)
    assert raw.ndim == (2 if case.startswith(("grey", "one bit")) else 3)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_an_animation_gives_its_first_frame(form):
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    options = {"lossless": True} if form == "WEBP" else {}
    data = file_of(frames[0], form, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode(data), RGB)


def test_jpegs_of_all_color_spaces_come_near_their_pixels():
    smooth = np.asarray(Image.fromarray(RGB).resize((64, 48), Image.BICUBIC))
    gray = smooth[:, :, 0]
    for data, expected in (
        (encode(smooth, "JPEG", quality=98, subsampling=0), smooth),
        (encode(gray, "JPEG", quality=98), three(gray)),
        (file_of(Image.fromarray(smooth).convert("CMYK"), "JPEG", quality=98), smooth),
        (encode(smooth, "JPEG", quality=98, subsampling=0, progressive=True), smooth),
    ):
        assert np.abs(decode(data).astype(int) - expected).mean() < 2


def test_exif_orientation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    for form in ("JPEG", "PNG", "WEBP"):
        data = file_of(Image.fromarray(RGB), form, exif=exif)
        assert decode(data).shape == RGB.shape


SMOOTH = np.asarray(Image.fromarray(RGB).resize((83, 61), Image.BICUBIC))


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"subsampling": 0, "quality": 95},
        {"subsampling": 1},
        {"quality": 20},
        {"keep_rgb": True},
        {"restart_marker_rows": 1},
    ],
)
def test_a_jpeg_has_pillows_pixels(options):
    for pixels in (SMOOTH, SMOOTH[:, :, 0]):
        data = encode(pixels, "JPEG", **options)
        for form in (data, memoryview(data)):
            decoded = decode_any(form)
            assert decoded.shape == pixels.shape
            np.testing.assert_array_equal(to_rgb(decoded), pillow(data))


def test_a_jpeg_of_any_sampling_has_pillows_pixels():
    for factor in ("411", "422", "440"):
        flag = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{factor}")
        data = cv2.imencode(".jpg", SMOOTH, [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, flag])[1].tobytes()
        np.testing.assert_array_equal(decode(data), pillow(data))
    flat = bytearray(encode(np.full((8, 8, 3), 128, np.uint8), "JPEG", subsampling=0))
    frame = flat.index(b"\xff\xc0")
    for factors in ((0x22, 0x21, 0x11), (0x21, 0x11, 0x12)):  # of Y, Cb, Cr: as no encoder has it
        flat[frame + 11], flat[frame + 14], flat[frame + 17] = factors
        assert (decode(bytes(flat)) == 128).all()


def test_a_jpeg_that_is_merely_odd_is_an_image():
    """Bytes after a scan, as real collections hold them: libjpeg warns, and has every pixel."""
    data = encode(SMOOTH, "JPEG")
    odd = data[:-2] + b"\0\0\0" + data[-2:]
    np.testing.assert_array_equal(decode(odd), decode(data))


def test_a_jpeg_in_ycck_becomes_rgb():
    """As Photoshop writes CMYK: luma and chroma of the inverted colors, and black inverted too."""
    ycc = np.asarray(Image.fromarray(255 - SMOOTH).convert("YCbCr"))
    stored = np.dstack([ycc, np.full(ycc.shape[:2], 255, np.uint8)])  # no black
    data = bytearray(file_of(Image.fromarray(255 - stored, "CMYK"), "JPEG", quality=98))
    data[data.index(b"Adobe") + 11] = 2  # the transform: YCCK, where Pillow says none
    assert np.abs(decode(bytes(data)).astype(int) - SMOOTH).mean() < 2
