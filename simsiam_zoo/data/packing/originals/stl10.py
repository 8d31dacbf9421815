"""STL-10's binary files (https://cs.stanford.edu/~acoates/stl10/).

Images are 3 x 96 x 96 bytes, columns first; labels are 1 to 10. The unlabelled images become shards
of their own, `unlabeled-*.tar`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.data.index import UNLABELLED, printable
from simsiam_zoo.data.packing.originals.original import Original, PixelSplit, below
from simsiam_zoo.errors import DataError

_PIXELS = 3 * 96 * 96
_CLASSES = 10


def find(source: Path) -> Original | None:
    """STL-10 in `source` or its `stl10_binary`. Raises DataError where a file is damaged."""
    for folder in below(source, ("stl10_binary",)):
        if (folder / "train_X.bin").is_file() and (folder / "train_y.bin").is_file():
            return _open(folder)
    return None


def _open(folder: Path) -> Original:
    files = {"train": "train", "val": "test", "unlabeled": "unlabeled"}
    splits = {
        split: _Images(folder / f"{name}_X.bin", folder / f"{name}_y.bin")
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


class _Images(PixelSplit):
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
