"""A folder that Hugging Face `datasets` wrote with `save_to_disk` (extra `hf`).

Only images that are embedded in its tables are read: a path that a table names is not followed.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simsiam_zoo.data.index import UNLABELLED, printable
from simsiam_zoo.data.packing.originals import Original, OriginalSplit, png
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
    chosen = {"train": named["train"]} if "train" in named else {}
    tests = [name for name in _TESTS if name in named]
    if tests:
        chosen["val"] = named[tests[0]]
    left = sorted(named.keys() - {"train", *tests[:1]})
    notes = tuple(f"the split {printable(name.encode())} is not packed" for name in left)
    if not chosen:
        raise InputError(f"{source} has neither a train nor a test split", "Save it as one.")
    image, label, classes = _columns(source, next(iter(chosen.values())))
    splits = {name: _Table(source, table, image, label) for name, table in chosen.items()}
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
        plain = features.get("label")
        integer = plain is not None and str(getattr(plain, "dtype", "")).startswith(("int", "uint"))
        return images[0], "label" if integer else None, None
    label = "label" if "label" in labels else labels[0]
    names = tuple(printable(name.encode("utf-8", "replace")) for name in features[label].names)
    return images[0], label, names


class _Table(OriginalSplit):
    def __init__(self, source: Path, table: Any, image: str, label: str | None) -> None:
        from datasets import Image as ImageFeature

        self._table, self._image = table.cast_column(image, ImageFeature(decode=False)), image
        n = len(table)
        self.labels = np.full(n, UNLABELLED, np.int64)
        if label is not None:
            found = table.with_format("numpy", columns=[label])[label][:] if n else self.labels
            self.labels = np.maximum(np.asarray(found).astype(np.int64), UNLABELLED)
        self.sizes = np.array(_lengths(self._table, image), np.int64)
        if n and not self.sizes.any():
            raise InputError(
                f"the images of {source} are not in it, only their paths, which are not followed",
                "Save it with the images embedded: Dataset.save_to_disk does.",
            )

    def name(self, i: int) -> str:
        """`row 17`."""
        return f"row {i}"

    def read(self, i: int) -> bytes:
        """The image's bytes; formats that shards do not hold are written as PNG."""
        content = self._table[i][self._image]
        data = content["bytes"] if content else None
        if not data:
            raise DataError("there is no image in this row")
        if data[:3] == b"\xff\xd8\xff" or data[:4] in (b"\x89PNG", b"RIFF"):
            return bytes(data)
        return _as_png(data)


def _lengths(table: Any, image: str) -> list[int]:
    """Bytes of each row's image, from the tables alone."""
    import pyarrow.compute as pc

    chosen = table.with_format("arrow")
    lengths: list[int] = []
    for begin in range(0, len(table), 1000):
        column = chosen[begin : begin + 1000].column(image)
        sizes = pc.binary_length(pc.struct_field(column, "bytes")).to_pylist()
        lengths += [size or 0 for size in sizes]
    return lengths


def _as_png(data: bytes) -> bytes:
    from simsiam_zoo.data.decode import MAX_PIXELS

    try:
        with Image.open(io.BytesIO(data), formats=("BMP", "GIF", "TIFF", "PPM")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"an image of {image.width} x {image.height} pixels is refused")
            return png(np.array(image.convert("RGB")))
    except DataError:
        raise
    except Exception as error:  # what Pillow raises for damaged files is not listed anywhere
        raise DataError(f"it is no image that can be packed: {error}") from None
