"""A folder that Hugging Face `datasets` wrote with `save_to_disk` (extra `datasets`).

Only images that are embedded in its tables are read: a path that a table names is not followed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from simsiam_zoo.data.index import UNLABELLED, printable
from simsiam_zoo.data.packing.writer import Original, OriginalSplit
from simsiam_zoo.errors import DataError, InputError

_TESTS = ("val", "validation", "valid", "test")


def find_saved(source: Path) -> Original | None:
    """The saved data set in `source`.

    Raises:
        InputError: `datasets` is not installed, or there is no column of images.
        DataError: it is damaged.
    """
    if not any((source / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return None
    try:
        from datasets import DatasetDict, load_from_disk
    except ImportError:
        raise InputError(
            f"{source} was saved by Hugging Face datasets, which is not installed",
            "pip install 'simsiam-zoo[datasets]'",
        ) from None
    try:
        loaded = load_from_disk(str(source), keep_in_memory=False)
    except Exception as error:  # what damaged tables raise is not listed anywhere
        raise DataError(f"{source} cannot be read: {error}") from None
    named = dict(loaded) if isinstance(loaded, DatasetDict) else {"train": loaded}
    taken = {"train": "train"} if "train" in named else {}
    if test := next((name for name in _TESTS if name in named), None):
        taken["val"] = test
    if not taken:
        raise InputError(f"{source} has neither a train nor a test split", "Save it as one.")
    left = sorted(named.keys() - set(taken.values()))
    notes = tuple(f"the split {printable(name.encode())} is not packed" for name in left)
    image, label, classes = _columns(source, named[next(iter(taken.values()))])
    splits = {to: _Table(source, named[name], image, label) for to, name in taken.items()}
    return Original("hugging face datasets", splits, classes, notes)


def _columns(source: Path, table: Any) -> tuple[str, str | None, tuple[str, ...] | None]:
    """The column of images, that of labels, and the names of the classes."""
    from datasets import ClassLabel
    from datasets import Image as ImageFeature

    features = table.features
    images = [name for name, kind in features.items() if isinstance(kind, ImageFeature)]
    if not images:
        raise InputError(f"{source} has no column of images among {', '.join(features)}")
    labels = [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
    if not labels:
        integer = str(getattr(features.get("label"), "dtype", "")).startswith(("int", "uint"))
        return images[0], "label" if integer else None, None
    label = "label" if "label" in labels else labels[0]
    names = tuple(printable(name.encode("utf-8", "replace")) for name in features[label].names)
    return images[0], label, names


class _Table(OriginalSplit):
    def __init__(self, source: Path, table: Any, image: str, label: str | None) -> None:
        from datasets import Image as ImageFeature

        self._table, self._image = table.cast_column(image, ImageFeature(decode=False)), image
        self.labels = np.full(len(table), UNLABELLED, np.int64)
        if label is not None and len(table):
            found = table.with_format("numpy", columns=[label])[label][:]
            self.labels = np.maximum(np.asarray(found).astype(np.int64), UNLABELLED)
        if len(table) and not self._table[0][image]["bytes"]:
            raise InputError(
                f"the images of {source} are not in it, only their paths, which are not followed",
                "Save it with the images embedded: Dataset.save_to_disk does.",
            )

    def name(self, i: int) -> str:
        """`row 17`."""
        return f"row {i}"

    def read(self, i: int) -> bytes:
        """The image's bytes."""
        content = self._table[i][self._image]
        if not content or not content["bytes"]:
            raise DataError("there is no image in this row")
        return bytes(content["bytes"])
