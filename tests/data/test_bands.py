"""Images of other channels than three: read as stored, bounded, and viewed as others are."""

from __future__ import annotations

import io
import os
import pickle
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from made_images import encode

from simsiam_zoo.components.augmentations import DigitsAugmentation, SimSiamAugmentation
from simsiam_zoo.data.bands import read_bands
from simsiam_zoo.data.decode import as_stored, decode, decode_as
from simsiam_zoo.data.image import ViewParams, center, render_view, shown
from simsiam_zoo.data.index import ImageError
from simsiam_zoo.data.loader import EvalLoader, TrainLoader, normalize_pixels
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.packing.formats import open_original
from simsiam_zoo.data.packing.job import PackOptions, pack_original
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.errors import InputError


def array_file(array: np.ndarray, pickled: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=pickled)
    return file.getvalue()


def pixels(*shape: int, bits: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << bits, shape).astype(f"u{bits // 8}")


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2"])
def test_an_array_is_read_as_it_was_saved(channels: int, dtype: str) -> None:
    image = pixels(7, 5, channels, bits=8).astype(dtype) + (300 if dtype[-1] == "2" else 0)
    for order in ("C", "F"):
        found = read_bands(array_file(np.array(image, order=order)))
        assert found.dtype.isnative
        assert np.array_equal(found, image)
    if channels == 1:
        assert np.array_equal(read_bands(array_file(image[:, :, 0])), image)


def test_levels_of_8_and_of_16_bits_have_one_scale() -> None:
    eight = pixels(6, 6, 4, bits=8)
    assert np.array_equal(decode_as(array_file(eight), 4), eight.astype(np.uint16) * 257)
    assert np.array_equal(decode_as(encode(eight), 4), eight.astype(np.uint16) * 257)  # RGBA
    deep = pixels(6, 6, 4)
    png = cv2.imencode(".png", deep[:, :, [2, 1, 0, 3]])[1].tobytes()
    assert np.array_equal(decode_as(png, 4), deep)
    grey = decode_as(encode(eight[:, :, 0]), 1)
    assert grey.shape == (6, 6)
    # three channels stay what they were: 8 bits, alpha dropped
    assert np.array_equal(decode(encode(eight)), eight[:, :, :3])
    levels = decode(array_file(deep[:, :, :3]))
    assert np.array_equal(levels, np.rint(deep[:, :, :3] / 257).astype(np.uint8))


class Exploit:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("executed",)


def refused() -> dict[str, bytes]:
    good = array_file(pixels(8, 8, 5))
    header = good.index(b"\n") + 1
    huge = good[:header].replace(b"(8, 8, 5)", b"(999999, 999999, 5)")
    return {
        "pickle": array_file(np.array([Exploit()], object), pickled=True),
        "pickled beside": good[:-4] + pickle.dumps(Exploit()),
        "float": array_file(np.zeros((4, 4, 5), np.float32)),
        "signed": array_file(np.zeros((4, 4, 5), np.int16)),
        "17 channels": array_file(pixels(4, 4, 17)),
        "four dimensions": array_file(pixels(2, 2, 2, 2)),
        "a vector": array_file(pixels(512)),
        "empty": array_file(np.zeros((0, 4, 5), np.uint8)),
        "cut off": good[:-1],
        "too long": good + b"\0",
        "huge": huge,
        "no header": good[:20],
        "version 9": good[:6] + b"\x09" + good[7:],
        "code for a header": good[:10]
        + b"__import__('os').mkdir('executed')".ljust(118)
        + good[128:],
    }


@pytest.mark.parametrize("what", refused())
def test_an_array_that_is_no_image_is_damage(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError):
        decode_as(refused()[what], 5)
    assert not Path("executed").exists()


def test_other_channels_than_asked_for_are_named() -> None:
    with pytest.raises(ImageError, match="it has 5 channels, not the 4"):
        decode_as(array_file(pixels(4, 4, 5)), 4)
    with pytest.raises(ImageError, match="it has 5 channels, not the 3"):
        decode(array_file(pixels(4, 4, 5)))


@pytest.mark.parametrize("planar", ["contig", "separate", "pages"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_bands_of_a_tiff(planar: str, compression: str | None, tile: object) -> None:
    image = pixels(20, 24, 5)
    made = tiff(image, planar, compression=compression, tile=tile)
    assert np.array_equal(as_stored(made), image)


def tiff(image: np.ndarray, planar: str = "contig", **options: object) -> bytes:
    tifffile = pytest.importorskip("tifffile", reason="TIFF needs simsiam-zoo[tiff]")
    if options.get("compression") == "lzw":
        pytest.importorskip("imagecodecs", reason="LZW needs simsiam-zoo[tiff]")
    file = io.BytesIO()
    data = image if planar == "contig" else image.transpose(2, 0, 1)
    if planar != "pages":
        options["planarconfig"] = planar
    tifffile.imwrite(file, data, photometric="minisblack", **options)
    return file.getvalue()


def test_a_tiff_that_unpacks_to_more_than_it_says_is_refused() -> None:
    made = tiff(pixels(16, 16, 5), compression="zlib", rowsperstrip=16)
    import tifffile

    with tifffile.TiffFile(io.BytesIO(made)) as file:
        page = file.pages[0]
        at, count = page.tags["StripOffsets"].valueoffset, page.tags["StripByteCounts"].valueoffset
    bomb = zlib.compress(bytes(1 << 25))
    blown = bytearray(made + bomb)
    blown[at : at + 4] = len(made).to_bytes(4, "little")
    blown[count : count + 4] = len(bomb).to_bytes(4, "little")
    with pytest.raises(ImageError, match="refused"):
        read_bands(bytes(blown))


@pytest.mark.parametrize("form", ["npy", "tiff"])
def test_flipped_bytes_are_damage_or_another_image(form: str) -> None:
    image = pixels(9, 9, 5)
    good = array_file(image) if form == "npy" else tiff(image, compression="zlib")
    generator = np.random.default_rng(0)
    for _ in range(300):
        made = bytearray(good)
        for at in generator.integers(0, min(len(made), 600), 3):
            made[at] = generator.integers(256)
        try:
            assert read_bands(bytes(made)).dtype in (np.uint8, np.uint16)
        except ImageError:
            continue


VIEWS = {
    "crop": ViewParams((3, 5, 30, 37)),
    "bicubic": ViewParams((3, 5, 30, 37), bicubic=True),
    "enlarged": ViewParams((3, 5, 13, 17), flip=True),
    "turned": ViewParams((3, 5, 30, 37), rotation=20.0, shear=0.1),
    "brighter": ViewParams((0, 0, 24, 24), jitter=(("brightness", 1.4), ("offset", -0.1))),
    "blurred": ViewParams((0, 0, 40, 40), blur=1.3),
    "solarized": ViewParams((0, 0, 24, 24), solarize=128),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_deep_view_is_the_view_of_its_8_bits(view: ViewParams) -> None:
    """The uint8 operations are tested against Pillow: they differ by rounding."""
    eight = cv2.GaussianBlur(pixels(40, 40, 3, bits=8), (5, 5), 0)
    plain = render_view(eight, view, 24).astype(int)
    deep = render_view(eight.astype(np.uint16) * 257, view, 24)
    assert deep.dtype == np.uint16
    difference = np.abs(deep / 257 - plain)
    assert difference.max() < 3  # each operation on 8 bits rounds, or cuts off
    assert difference.mean() < 0.8


def test_channels_do_not_meet() -> None:
    """A channel's view is that of the channel alone, contrast about its own mean."""
    image = pixels(40, 36, 5)
    view = ViewParams((2, 3, 30, 35), flip=True, jitter=(("contrast", 0.6),), blur=0.8)
    whole = render_view(image, view, 20)
    each = [render_view(np.ascontiguousarray(image[:, :, c]), view, 20) for c in range(5)]
    assert np.array_equal(whole, np.stack(each, axis=2))
    crop = render_view(image[:, :, 2].copy(), ViewParams((2, 3, 30, 35), flip=True), 20)
    harder = render_view(
        image[:, :, 2].copy(), ViewParams((2, 3, 30, 35), True, jitter=view.jitter), 20
    )
    assert np.allclose(harder, crop.mean() + 0.6 * (crop - crop.mean()), atol=1)
    assert center(image, 16, 0.875).shape == (16, 16, 5)


def test_what_needs_a_colour_says_so() -> None:
    image = pixels(8, 8, 5)
    for view in (
        ViewParams((0, 0, 8, 8), gray=True),
        ViewParams((0, 0, 8, 8), jitter=(("hue", 0.1),)),
    ):
        with pytest.raises(InputError, match="no colour"):
            render_view(image, view, 8)


def test_what_is_shown_of_five_channels() -> None:
    image = pixels(8, 8, 5, bits=8).astype(np.uint16) * 4
    picture = shown(image)
    assert picture.shape == (8, 8, 3)
    assert picture.dtype == np.uint8
    assert picture.max() == 255
    assert np.corrcoef(picture[..., 1].ravel(), image[..., 1].ravel())[0, 1] > 0.999


def test_deep_pixels_are_normalised_by_65535() -> None:
    images = torch.from_numpy(pixels(2, 5, 6, 6))
    mean, std = [0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.4, 0.3, 0.2, 0.1]
    found = normalize_pixels(images, mean, std)
    m, s = (torch.tensor(x)[:, None, None] for x in (mean, std))
    assert torch.allclose(found, (images.float() / 65535 - m) / s, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed tree of arrays of five channels: `train/a/*.npy`, ... and `val`."""
    root = tmp_path_factory.mktemp("tree")
    for split, count in (("train", 12), ("val", 4)):
        for number in range(count):
            folder = root / split / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            content = array_file(pixels(20, 18, 5, seed=number))
            (folder / f"{number}.npy").write_bytes(content if number != 3 else content[:-9])
    original = open_original(root)
    packed = pack_original(original, root / "packed", PackOptions(shard_samples=8))
    assert packed is not None
    assert packed.damaged == (2 if len(original.splits["val"]) > 3 else 1)
    return root / "packed"


def test_a_tree_of_arrays_is_packed_and_read_alike_by_any_number_of_workers(five: Path) -> None:
    dataset = open_shards(str(five)).of_channels(5)
    assert dataset.classes == ("a", "b")
    assert len(dataset.train) == 11
    augmentation = DigitsAugmentation(
        min_scale=0.5, rotation=5.0, shear=0.1, brightness=0.2, contrast=0.2
    )
    plan = SampleOrder(dataset.train.counts, 0, 4)
    made = [
        list(TrainLoader(dataset.train, plan, augmentation, 16, workers=workers, epochs=2))
        for workers in (0, 1)
    ]
    for alone, sent in zip(*made, strict=True):
        assert sent.pixels[0].shape == (2, 4, 5, 16, 16)
        assert sent.pixels[0].dtype == torch.uint16
        assert torch.equal(alone.pixels[0].int(), sent.pixels[0].int())
    seen = [batch.pixels[0].int() for batch in EvalLoader(dataset.train, 16, workers=1)]
    first = decode_as(dataset.train.read(0).image, 5)
    assert np.array_equal(seen[0][0, 0].permute(1, 2, 0).numpy(), center(first, 16))


def test_arrays_beside_images_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.png").write_bytes(encode(pixels(8, 8, 3, bits=8)))
    (tmp_path / "tree" / "a.npy").write_bytes(array_file(pixels(8, 8, 5)))
    assert len(open_original(tmp_path / "tree").splits["train"]) == 1


def test_colour_off_makes_the_papers_augmentation_fit() -> None:
    augmentation = SimSiamAugmentation(
        min_scale=0.2, brightness=0.4, contrast=0.4, saturation=0.0, hue=0.0, jitter_p=1.0,
        gray_p=0.0, flip_p=0.5, blur_p=0.5, interpolation="bicubic",
    )  # fmt: skip
    generator = np.random.default_rng(0)
    for number in range(20):
        view = augmentation.sample(generator, number % 2, (20, 18))
        assert render_view(pixels(20, 18, 7), view, 12).shape == (12, 12, 7)
