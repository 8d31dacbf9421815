"""MNIST and its kin in IDX files, plain or gzipped (http://yann.lecun.com/exdb/mnist/).

Plain files are mapped; gzipped ones are inflated into memory, up to the size the header states.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.data.index import UNLABELLED
from simsiam_zoo.data.packing.originals.original import (
    MAX_RESIDENT_BYTES,
    Original,
    PixelSplit,
    below,
)
from simsiam_zoo.errors import DataError, InputError

FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip
"""Of Fashion-MNIST (arXiv:1708.07747, table 2); its files are named and laid out as MNIST's."""

_SPLITS = {"train": "train", "val": "t10k"}
_FOLDERS = ("raw", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw")
_UNSIGNED_BYTE = 8


def find(source: Path) -> Original | None:
    """IDX files in `source` or where torchvision puts them below it.

    Raises:
        InputError: there are several data sets below it.
        DataError: a file is damaged.
    """
    folders = [folder for folder in below(source, _FOLDERS) if _file(folder, "train", "images", 3)]
    if not folders:
        return None
    if len(folders) > 1:
        names = " and ".join(str(folder) for folder in folders)
        raise InputError(f"there are several data sets in {source}: {names}", "Name one of them.")
    folder = folders[0].resolve()
    splits = {
        split: _Images(images, _file(folder, prefix, "labels", 1))
        for split, prefix in _SPLITS.items()
        if (images := _file(folder, prefix, "images", 3)) is not None
    }
    fashion = "fashion" in str(folder).lower()  # nothing inside the files tells them apart
    classes = FASHION if fashion else None
    most = max(int(split.labels.max(initial=-1)) for split in splits.values())
    if most >= 10:
        classes = None
    notes = () if classes else ("the classes' names are not known: --classes FILE",)
    return Original("fashion-mnist" if fashion else "idx", splits, classes, notes)


def _file(folder: Path, prefix: str, what: str, dimensions: int) -> Path | None:
    """`train-images-idx3-ubyte`; with a dot for the second hyphen, or .gz, as it comes too."""
    for joint in "-.":
        for ending in ("", ".gz"):
            path = folder / f"{prefix}-{what}{joint}idx{dimensions}-ubyte{ending}"
            if path.is_file():
                return path
    return None


class _Images(PixelSplit):
    def __init__(self, images: Path, labels: Path | None) -> None:
        self._path = images
        self._pixels: NDArray[np.uint8] | None = _read(images, 3)
        n = len(self._pixels)
        found = np.full(n, UNLABELLED, np.int64)
        if labels is not None:
            found = _read(labels, 1).astype(np.int64)
        if len(found) != n:
            raise DataError(f"{images} holds {n} images, but {labels} {len(found)} labels")
        super().__init__(found, self._pixels.shape[1:])

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pixels": None}

    def pixels(self, i: int) -> NDArray[np.uint8]:
        """[H, W]."""
        if self._pixels is None:
            self._pixels = _read(self._path, 3)
        image: NDArray[np.uint8] = self._pixels[i]
        return image


def _read(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of an IDX file of bytes. Raises DataError."""
    head = 4 + 4 * dimensions
    compressed = path.suffix == ".gz"
    try:
        with gzip.open(path) if compressed else path.open("rb") as file:
            start = file.read(head)
            shape = _shape(path, start, dimensions)
            size = int(np.prod(shape, dtype=object))
            if not compressed:
                if path.stat().st_size != head + size:
                    raise DataError(f"{path} is damaged: it has not the {size} bytes it states")
                return _mapped(path, head, shape)
            if size > MAX_RESIDENT_BYTES:
                raise DataError(f"{path} states {size:,} bytes: too many to inflate in memory")
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}") from None
    if len(content) != size:
        raise DataError(f"{path} is damaged: it has not the {size} bytes it states")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _mapped(path: Path, head: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if 0 in shape:  # nothing cannot be mapped
        return np.empty(shape, np.uint8)
    return np.memmap(path, np.uint8, "r", head, shape)


def _shape(path: Path, start: bytes, dimensions: int) -> tuple[int, ...]:
    if len(start) < 4 + 4 * dimensions or start[:4] != bytes([0, 0, _UNSIGNED_BYTE, dimensions]):
        raise DataError(f"{path} is no IDX file of bytes in {dimensions} dimension(s)")
    numbers = [int.from_bytes(start[at : at + 4]) for at in range(4, len(start), 4)]
    if dimensions == 3 and not 0 < numbers[1] * numbers[2] <= 1 << 26:
        raise DataError(f"{path} states images of {numbers[1]} x {numbers[2]} pixels")
    return tuple(numbers)
