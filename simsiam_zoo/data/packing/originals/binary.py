"""Data sets in plain binary files: MNIST and its kin (IDX), and STL-10.

IDX files (http://yann.lecun.com/exdb/mnist/) are mapped where they are plain; gzipped ones are
inflated into memory, up to the size the header states. STL-10's images
(https://cs.stanford.edu/~acoates/stl10/) are 3 x 96 x 96 bytes, columns first; its labels are 1 to
10, and its unlabelled images become shards of their own, `unlabeled-*.tar`.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.data.index import UNLABELLED, printable
from simsiam_zoo.data.packing.originals import MAX_RESIDENT_BYTES, Original, PixelSplit, below
from simsiam_zoo.errors import DataError, InputError

FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip
"""Of Fashion-MNIST (arXiv:1708.07747, table 2); its files are named and laid out as MNIST's."""

_SPLITS = {"train": "train", "val": "t10k"}
_FOLDERS = ("raw", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw")
_UNSIGNED_BYTE = 8


def find_idx(source: Path) -> Original | None:
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
        split: _IdxImages(images, _file(folder, prefix, "labels", 1))
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


class _IdxImages(PixelSplit):
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


_PIXELS = 3 * 96 * 96
_CLASSES = 10


def find_stl10(source: Path) -> Original | None:
    """STL-10 in `source` or its `stl10_binary`. Raises DataError where a file is damaged."""
    for folder in below(source, ("stl10_binary",)):
        if (folder / "train_X.bin").is_file() and (folder / "train_y.bin").is_file():
            return _open(folder)
    return None


def _open(folder: Path) -> Original:
    files = {"train": "train", "val": "test", "unlabeled": "unlabeled"}
    splits = {
        split: _StlImages(folder / f"{name}_X.bin", folder / f"{name}_y.bin")
        for split, name in files.items()
        if (folder / f"{name}_X.bin").is_file()
    }
    notes: tuple[str, ...] = ()
    if "unlabeled" in splits:
        notes = ("the unlabelled images are shards of their own: --data 'OUT/unlabeled-*.tar'",)
    return Original("stl-10", splits, _class_names(folder / "class_names.txt"), notes)


def _class_names(path: Path) -> tuple[str, ...] | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        names = file.read(1 << 16).split()
    if len(names) != _CLASSES:
        raise DataError(f"{path} does not name {_CLASSES} classes")
    return tuple(map(printable, names))


class _StlImages(PixelSplit):
    def __init__(self, images: Path, labels: Path) -> None:
        self._path = images
        size = images.stat().st_size
        n = size // _PIXELS
        if size % _PIXELS:
            raise DataError(f"{images} is damaged: its size is no multiple of {_PIXELS} bytes")
        stated = labels.stat().st_size if labels.is_file() else n
        if stated != n:
            raise DataError(f"{images} holds {n} images, but {labels} {stated} labels")
        found = np.full(n, UNLABELLED, np.int64)
        if labels.is_file():
            found = np.fromfile(labels, np.uint8).astype(np.int64) - 1
        if labels.is_file() and len(found) and not 0 <= found.min() <= found.max() < _CLASSES:
            raise DataError(f"{labels} has labels outside 1 to {_CLASSES}")
        super().__init__(found, (96, 96, 3))

    def pixels(self, i: int) -> NDArray[np.uint8]:
        """[96, 96, 3]."""
        flat = np.fromfile(self._path, np.uint8, _PIXELS, offset=i * _PIXELS)
        if len(flat) < _PIXELS:
            raise DataError(f"{self._path} was cut off while it was read")
        return flat.reshape(3, 96, 96).transpose(2, 1, 0)
