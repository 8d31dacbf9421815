"""Data sets as they lie on disk before they are packed: MNIST's kin, CIFAR, STL-10, and others.

Each `find_...` gives an `Original`, or None where its folder is laid out otherwise; it raises
InputError for several data sets and DataError for a damaged one. All of it is untrusted input:
nothing in it is executed, and sizes are checked before memory is spent.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.data.index import UNLABELLED, printable
from simsiam_zoo.data.packing.images import find_saved, find_tree
from simsiam_zoo.data.packing.writer import Original, OriginalSplit, png
from simsiam_zoo.errors import DataError, InputError

MAX_RESIDENT_BYTES = 1 << 32
"""Largest file that is inflated into memory."""

FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip
"""Of Fashion-MNIST (arXiv:1708.07747, table 2); its files are named and laid out as MNIST's."""

LAYOUTS = (
    "CIFAR-10 or CIFAR-100 (cifar-10-batches-py, cifar-10-batches-bin, ...)",
    "MNIST or Fashion-MNIST (train-images-idx3-ubyte, plain or .gz, ...)",
    "STL-10 (stl10_binary: train_X.bin, ...)",
    "a folder that Hugging Face `datasets` saved (save_to_disk)",
    "a tree of images (train/CLASS/*.jpg and val/..., CLASS/*.jpg, or *.jpg)",
)

SHARDS = "Shards, called train-*.tar and val-*.tar or just *.tar, are read as they are."

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Pixels [n, H, W] or [n, H, W, 3], and labels [n]."""


def open_original(source: Path, labels: bool = True) -> Original:
    """The data set in a folder, as it was downloaded and unpacked, or torchvision's `root` of it.

    Without `labels` all images count as unlabelled, and in a tree whatever the folders are called.
    Raises InputError where there is none or more than one, DataError where it is damaged.
    """
    if not source.exists():
        raise InputError(f"there is no folder or archive {source}", "Name one that is there.")
    if not source.is_dir():
        raise InputError(f"{source} is no folder", "Unpack the data set and name its folder.")
    try:
        finders = (find_cifar, find_idx, find_stl10, find_saved)
        found = [one for find in finders if (one := find(source)) is not None]
        if len(found) > 1:
            kinds = " and ".join(one.kind for one in found)
            raise InputError(f"{source} holds {kinds}", "Name the folder of one of them.")
        original = found[0] if found else find_tree(source, labels)
    except OSError as error:
        where = error.filename or source
        raise InputError(
            f"{os.fsdecode(where)} cannot be read: {error.strerror or error}",
            "Give yourself the right to read it, or pack another folder.",
        ) from None
    if original is None or not any(len(split) for split in original.splits.values()):
        looked = "".join(f"\n    {layout}" for layout in LAYOUTS)
        raise InputError(f"{source} holds no images; looked for{looked}", SHARDS)
    if labels:
        return original
    for split in original.splits.values():
        split.labels = np.full(len(split), UNLABELLED, np.int64)
    return replace(original, classes=None)


class PixelSplit(OriginalSplit):
    """Images stored as raw pixels of one size: each is written as a PNG, losslessly.

    `load` reads the arrays, in each worker process anew. Raises DataError where labels are too few,
    too many, or not below `classes`.
    """

    def __init__(self, load: Callable[[], Arrays], where: Path, classes: int = 256) -> None:
        self._load = load
        images, self.labels = load()
        self._images: NDArray[np.uint8] | None = images
        if len(images) != len(self.labels):
            counts = f"{len(images)} images, but there are {len(self.labels)} labels"
            raise DataError(f"{where} holds {counts}")
        if len(images) and not UNLABELLED <= self.labels.min() <= self.labels.max() < classes:
            raise DataError(f"{where} has labels outside of {classes} classes")

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_images": None}

    def name(self, i: int) -> str:
        """`image #17`."""
        return f"image #{i}"

    def read(self, i: int) -> bytes:
        """The i-th image as a PNG."""
        if self._images is None:
            self._images, _ = self._load()
        return png(self._images[i])


def _below(source: Path, names: tuple[str, ...]) -> list[Path]:
    """`source` and those of its subfolders `names` that are there."""
    return [folder for folder in (source, *(source / name for name in names)) if folder.is_dir()]


def _class_names(path: Path, count: int) -> tuple[str, ...] | None:
    """The names in a text file. Raises DataError where they are not `count`."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        names = file.read(1 << 16).split()
    if len(names) != count:
        raise DataError(f"{path} does not name {count} classes")
    return tuple(map(printable, names))


def find_idx(source: Path) -> Original | None:
    """MNIST and its kin (http://yann.lecun.com/exdb/mnist/), where torchvision keeps it too."""
    places = _below(source, ("raw", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw"))
    folders = [folder for folder in places if _idx_file(folder, "train-images")]
    if not folders:
        return None
    if len(folders) > 1:
        names = " and ".join(str(folder) for folder in folders)
        raise InputError(f"there are several data sets in {source}: {names}", "Name one of them.")
    folder = folders[0].resolve()
    splits = {
        split: PixelSplit(partial(_load_idx, images, _idx_file(folder, f"{name}-labels")), images)
        for split, name in (("train", "train"), ("val", "t10k"))
        if (images := _idx_file(folder, f"{name}-images")) is not None
    }
    fashion = "fashion" in str(folder).lower()  # nothing inside the files tells them apart
    most = max(int(split.labels.max(initial=-1)) for split in splits.values())
    classes = FASHION if fashion and most < len(FASHION) else None
    notes = () if classes else ("the classes' names are not known: --classes FILE",)
    return Original("fashion-mnist" if fashion else "idx", splits, classes, notes)


def _idx_file(folder: Path, name: str) -> Path | None:
    """`train-images-idx3-ubyte`; with a dot for the second hyphen, or .gz, as it comes too."""
    plain = sorted(folder.glob(f"{name}[-.]idx?-ubyte"))
    return next(iter(plain + sorted(folder.glob(f"{name}[-.]idx?-ubyte.gz"))), None)


def _load_idx(images: Path, labels: Path | None) -> Arrays:
    pixels = _read_idx(images, 3)
    if labels is None:
        return pixels, np.full(len(pixels), UNLABELLED, np.int64)
    return pixels, _read_idx(labels, 1).astype(np.int64)


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of an IDX file of bytes. Raises DataError."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            if file.read(4) != bytes([0, 0, 8, dimensions]):
                raise DataError(f"{path} is no IDX file of bytes in {dimensions} dimension(s)")
            shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
            size = math.prod(shape)
            if size > MAX_RESIDENT_BYTES or not all(shape[1:]):
                raise DataError(f"{path} states an array of {shape}, which is refused")
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{path} is damaged: {error}") from None
    if len(content) != size:
        raise DataError(f"{path} is damaged: it has not the {size} bytes it states")
    return np.frombuffer(content, np.uint8).reshape(shape)


_TRAIN_10 = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_CIFAR = (  # name, classes, training files, test file, class names
    ("cifar-10", 10, _TRAIN_10, "test_batch.bin", "batches.meta.txt"),
    ("cifar-100", 100, ("train.bin",), "test.bin", "fine_label_names.txt"),
)


def find_cifar(source: Path) -> Original | None:
    """CIFAR in `source` or in the folder that its archive unpacks to; the binary version first.

    The Python version is pickled: torchvision reads it after it has compared each file with the
    MD5 that is published for it.
    """
    found = [one for layout in _CIFAR if (one := _find_cifar(source, *layout)) is not None]
    if len(found) > 1:
        raise InputError(f"{source} holds cifar-10 and cifar-100", "Name the folder of one.")
    return found[0] if found else None


def _find_cifar(
    source: Path, kind: str, classes: int, train: tuple[str, ...], test: str, names: str
) -> Original | None:
    binary = "cifar-10-batches-bin" if classes == 10 else "cifar-100-binary"
    for folder in _below(source, (binary,)):
        missing = [name for name in (*train, test, names) if not (folder / name).is_file()]
        if 0 < len(missing) <= len(train) and (classes == 10 or folder.name == binary):
            raise DataError(f"{folder} lacks {', '.join(missing)} of {kind}", "Unpack it again.")
        if not missing:
            splits = {
                split: PixelSplit(partial(_load_cifar, folder, files, classes), folder, classes)
                for split, files in (("train", train), ("val", (test,)))
            }
            return Original(kind, splits, _class_names(folder / names, classes))
    pickled = "cifar-10-batches-py" if classes == 10 else "cifar-100-python"
    source = source.absolute()
    root = source.parent if source.name == pickled else source
    if not (root / pickled).is_dir():
        return None
    splits = {
        split: PixelSplit(partial(_unpickle, root, classes, split == "train"), root / pickled)
        for split in ("train", "val")
    }
    return Original(kind, splits, tuple(_torchvision_cifar(root, classes, False).classes))


def _load_cifar(folder: Path, files: tuple[str, ...], classes: int) -> Arrays:
    """Records are (label,) or (coarse, fine), then 3 x 32 x 32 pixels
    (https://www.cs.toronto.edu/~kriz/cifar.html).
    """
    heads = 1 if classes == 10 else 2
    parts = [np.fromfile(folder / name, np.uint8) for name in files]
    for name, part in zip(files, parts, strict=True):
        if len(part) % (size := heads + 3072):
            raise DataError(f"{folder / name} is damaged: its records are not of {size} bytes each")
    records = np.concatenate(parts).reshape(-1, heads + 3072)
    images = records[:, heads:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, records[:, heads - 1].astype(np.int64)


def _unpickle(root: Path, classes: int, train: bool) -> Arrays:
    found = _torchvision_cifar(root, classes, train)
    return found.data, np.array(found.targets, np.int64)


def _torchvision_cifar(root: Path, classes: int, train: bool) -> Any:
    from torchvision.datasets import CIFAR10, CIFAR100  # seconds to import

    kind = CIFAR10 if classes == 10 else CIFAR100
    try:
        return kind(str(root), train)
    except RuntimeError:
        raise DataError(
            f"a file in {root / kind.base_folder} is missing or not the one that its authors"
            " publish (by its MD5): it is a pickle and is not read",
            "Download it again; or take the binary version, which is read whatever is in it.",
        ) from None


def find_stl10(source: Path) -> Original | None:
    """STL-10 in `source` or its `stl10_binary` (https://cs.stanford.edu/~acoates/stl10/).

    Its unlabelled images become shards of their own.
    """
    for folder in _below(source, ("stl10_binary",)):
        if (folder / "train_X.bin").is_file() and (folder / "train_y.bin").is_file():
            break
    else:
        return None
    splits = {
        split: PixelSplit(partial(_load_stl, folder, name), folder / f"{name}_X.bin", 10)
        for split, name in (("train", "train"), ("val", "test"), ("unlabeled", "unlabeled"))
        if (folder / f"{name}_X.bin").is_file()
    }
    note = "the unlabelled images are shards of their own: --data 'OUT/unlabeled-*.tar'"
    notes = (note,) if "unlabeled" in splits else ()
    return Original("stl-10", splits, _class_names(folder / "class_names.txt", 10), notes)


def _load_stl(folder: Path, name: str) -> Arrays:
    """Images of 3 x 96 x 96 bytes, columns first; labels from 1 on."""
    path, labels = folder / f"{name}_X.bin", folder / f"{name}_y.bin"
    size = path.stat().st_size
    if not size or size % (3 * 96 * 96):
        raise DataError(f"{path} is damaged: its images are not of {3 * 96 * 96} bytes each")
    flat = np.memmap(path, np.uint8, "r").reshape(-1, 3, 96, 96)
    if not labels.is_file():
        return flat.transpose(0, 3, 2, 1), np.full(len(flat), UNLABELLED, np.int64)
    found = np.fromfile(labels, np.uint8).astype(np.int64) - 1
    if (found < 0).any():
        raise DataError(f"{labels} has labels below 1")
    return flat.transpose(0, 3, 2, 1), found
