"""Data sets as they lie on disk before they are packed: what is there, image by image.

Each module knows some layouts and has a function for each, which is given a folder and gives an
`Original`, or None where the folder is laid out otherwise. All of it is untrusted input: nothing in
it is executed or unpickled, and sizes are checked before memory is spent.
"""

from __future__ import annotations

import abc
import importlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from simsiam_zoo.data.index import UNLABELLED
from simsiam_zoo.errors import InputError

MAX_RESIDENT_BYTES = 1 << 32
"""Largest file that is held in memory whole: those that are compressed or pickled."""


class OriginalSplit(abc.ABC):
    """The images of one split, 0 to n - 1, in an order that their names and contents decide.

    A split is sent to worker processes: what it opens, it opens when it is first read there.

    Attributes:
        labels: [n], -1 where there is none.
        sizes: [n] bytes of each image, as far as they are known without reading it.
    """

    labels: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def key(self, i: int) -> str:
        """The i-th image's key in the shards: unique in the split; ASCII without dot or slash."""
        return f"{i:08d}"

    @abc.abstractmethod
    def name(self, i: int) -> str:
        """What the source calls the i-th image; fit to be shown."""

    @abc.abstractmethod
    def read(self, i: int) -> bytes:
        """The i-th image, encoded. Raises DataError where it cannot be read."""


@dataclass(frozen=True)
class Original:
    """A data set to be packed.

    Attributes:
        kind: what it is ("cifar-10", "image folder", ...).
        splits: "train", "val" and others, as the shards will be called.
        classes: names of the labels 0, 1, ..., where known.
        notes: what a person should know of what was taken and what was not.
    """

    kind: str
    splits: Mapping[str, OriginalSplit]
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = field(default=())


def unlabelled(original: Original) -> Original:
    """The same images without their labels."""
    for split in original.splits.values():
        split.labels = np.full(len(split), UNLABELLED, np.int64)
    return replace(original, classes=None)


class PixelSplit(OriginalSplit):
    """Images stored as raw pixels of one size: each is written as a PNG, losslessly.

    Args:
        labels: [n].
        shape: of each image, (H, W) or (H, W, 3).
        title: what to call the images.
    """

    def __init__(
        self, labels: NDArray[np.int64], shape: tuple[int, ...], title: str = "image"
    ) -> None:
        self.labels = labels
        self.sizes = np.full(len(labels), int(np.prod(shape)) + shape[0] + 100, np.int64)
        self._title = title

    def name(self, i: int) -> str:
        """`data_batch_1 #17`."""
        return f"{self._title} #{i}"

    @abc.abstractmethod
    def pixels(self, i: int) -> NDArray[np.uint8]:
        """The i-th image, [H, W] or [H, W, 3]."""

    def read(self, i: int) -> bytes:
        """The i-th image as a PNG."""
        return png(self.pixels(i))


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels as a PNG.

    Stored, not deflated: the bytes do not depend on the zlib at hand, decoding is faster, and small
    images would not fill fewer blocks of a tar.
    """
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=0)
    return file.getvalue()


def below(source: Path, names: tuple[str, ...]) -> list[Path]:
    """`source` and those of its subfolders `names` that are there."""
    return [folder for folder in (source, *(source / name for name in names)) if folder.is_dir()]


LAYOUTS = {
    "CIFAR-10 or CIFAR-100 (cifar-10-batches-py, cifar-10-batches-bin, ...)": "cifar:find_cifar",
    "MNIST or Fashion-MNIST (train-images-idx3-ubyte, plain or .gz, ...)": "binary:find_idx",
    "STL-10 (stl10_binary: train_X.bin, ...)": "binary:find_stl10",
    "a folder that Hugging Face `datasets` saved (save_to_disk)": "huggingface:find_saved",
    "a tree of images (train/CLASS/*.jpg and val/..., CLASS/*.jpg, or *.jpg)": "images:find_tree",
}
"""What can be packed, and the module that reads it; a tree of images is looked for last."""


def open_original(source: Path, labels: bool = True) -> Original:
    """The data set in the folder `source`.

    Args:
        source: as it was downloaded and unpacked; where torchvision keeps it (its `root`) will do.
        labels: False takes all images as unlabelled, and in a tree whatever the folders are called.

    Raises:
        InputError: there is none, or more than one.
        DataError: what is there is damaged.
    """
    if not source.is_dir():
        raise InputError(f"there is no folder {source}", "Unpack the data set and name its folder.")
    try:
        return _open(source, labels)
    except OSError as error:
        where = error.filename or source
        raise InputError(f"{where} cannot be read: {error.strerror or error}") from None


def _open(source: Path, labels: bool) -> Original:
    *known, tree = map(_finder, LAYOUTS.values())
    found = [one for find in known if (one := find(source)) is not None]
    if len(found) > 1:
        kinds = " and ".join(one.kind for one in found)
        raise InputError(f"{source} holds {kinds}", "Name the folder of one of them.")
    original: Original | None = found[0] if found else tree(source, labels)
    if original is None or not any(len(split) for split in original.splits.values()):
        looked = "".join(f"\n    {layout}" for layout in LAYOUTS)
        raise InputError(f"{source} holds no images; looked for{looked}")
    return original if labels else unlabelled(original)


def _finder(target: str) -> Any:
    """The function that `target` names; its module is imported only now."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
