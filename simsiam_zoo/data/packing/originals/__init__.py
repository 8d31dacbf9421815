"""Data sets as they lie on disk before they are packed: what is there, image by image.

Each module knows one layout and has `find(folder)`, which gives an `Original`, or None where the
folder is laid out otherwise. All of it is untrusted input: nothing in it is executed or unpickled,
and sizes are checked before memory is spent.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from simsiam_zoo.data.packing.originals.original import Original, Split, unlabelled
from simsiam_zoo.errors import InputError

__all__ = ["LAYOUTS", "Original", "Split", "open_original"]

LAYOUTS = {
    "CIFAR-10 or CIFAR-100 (cifar-10-batches-py, cifar-10-batches-bin, ...)": "cifar",
    "MNIST or Fashion-MNIST (train-images-idx3-ubyte, plain or .gz, ...)": "idx",
    "STL-10 (stl10_binary: train_X.bin, ...)": "stl10",
    "a folder that Hugging Face `datasets` saved (save_to_disk)": "huggingface",
    "a tree of images (train/CLASS/*.jpg and val/..., CLASS/*.jpg, or *.jpg)": "images",
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
    *known, tree = (
        importlib.import_module(f"simsiam_zoo.data.packing.originals.{module}")
        for module in LAYOUTS.values()
    )
    found = [one for module in known if (one := module.find(source)) is not None]
    if len(found) > 1:
        kinds = " and ".join(one.kind for one in found)
        raise InputError(f"{source} holds {kinds}", "Name the folder of one of them.")
    original: Original | None = found[0] if found else tree.find(source, labels)
    if original is None or not any(len(split) for split in original.splits.values()):
        looked = "".join(f"\n    {layout}" for layout in LAYOUTS)
        raise InputError(f"{source} holds no images; looked for{looked}")
    return original if labels else unlabelled(original)
