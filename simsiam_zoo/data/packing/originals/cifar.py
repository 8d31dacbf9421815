"""CIFAR-10 and CIFAR-100, in the binary or the Python version of their authors.

Records of the binary version are (label,) or (coarse, fine), then 3 x 32 x 32 pixels
(https://www.cs.toronto.edu/~kriz/cifar.html). Batches of the Python version are pickles. A pickle
names callables for the reader to call. Here it gets none but inert classes of our own in place of
NumPy's: they note what they are given, and an array of bytes is made of that afterwards.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.data.index import printable
from simsiam_zoo.data.packing.originals import MAX_RESIDENT_BYTES, Original, PixelSplit, below
from simsiam_zoo.errors import DataError, InputError


class _Dtype:
    """Stands for `numpy.dtype`."""

    __slots__ = ("name",)

    def __init__(self, name: object = "", *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Byte order and fields: nothing that bytes need."""


class PickledArray:
    """Stands for an array while it is unpickled: (version, shape, dtype, is_fortran, bytes)."""

    __slots__ = ("_data", "_dtype", "_fortran", "shape")

    def __init__(self, *_: object) -> None:
        self.shape: object = ()
        self._dtype: object = None
        self._fortran: object = False
        self._data: object = b""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array is not stored as NumPy stores it")
        _, self.shape, self._dtype, self._fortran, self._data = state

    def to_numpy(self, where: Path) -> NDArray[np.uint8]:
        """The array, from the file `where`.

        Raises:
            DataError: it is not one of bytes, in rows, of the shape it states.
        """
        dtype, data, shape = self._dtype, self._data, self.shape
        raw = data.encode("latin1") if isinstance(data, str) else data
        if not isinstance(dtype, _Dtype) or dtype.name not in ("u1", b"u1") or self._fortran:
            raise DataError(f"{where}: a pickled array is not one of bytes in rows")
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise DataError(f"{where}: a pickled array has no shape")
        count = 1
        for n in shape:
            count *= n
        if not isinstance(raw, bytes) or len(raw) != count:
            raise DataError(f"{where}: a pickled array has not the bytes that its shape needs")
        return np.frombuffer(raw, np.uint8).reshape(shape)


class _Inert:
    """Stands for `numpy.ndarray`, which is only passed on."""

    __slots__ = ()


_STANDINS = {
    ("numpy", "ndarray"): _Inert,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): PickledArray,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STANDINS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused") from None


def load_plain(path: Path) -> Any:
    """Lists, dictionaries, texts, numbers and `PickledArray`s of a pickle; texts of Python 2 as
    latin-1.

    Raises:
        DataError: it is damaged or absurdly large, or names anything to be called.
    """
    try:
        if path.stat().st_size > MAX_RESIDENT_BYTES:
            raise DataError(f"{path} is absurdly large")
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="latin1").load()
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{path} asks for more memory than there is") from None
    except Exception as error:  # what damaged pickles raise is not listed anywhere
        raise DataError(f"{path} is refused: {error}") from None


_PIXELS = 3 * 32 * 32
_TRAIN_10 = tuple(f"data_batch_{i}" for i in range(1, 6))


@dataclass(frozen=True)
class _Layout:
    kind: str
    folder: str
    binary: bool
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str  # the file with the names of the classes
    key: str  # of the labels in a pickle; of the names in the pickle `names`
    names_key: str
    classes: int
    label_bytes: int


_LAYOUTS = (
    _Layout(
        "cifar-10", "cifar-10-batches-bin", True, tuple(f"{n}.bin" for n in _TRAIN_10),
        ("test_batch.bin",), "batches.meta.txt", "", "", 10, 1,
    ),
    _Layout(
        "cifar-10", "cifar-10-batches-py", False, _TRAIN_10, ("test_batch",), "batches.meta",
        "labels", "label_names", 10, 0,
    ),
    _Layout(
        "cifar-100", "cifar-100-binary", True, ("train.bin",), ("test.bin",),
        "fine_label_names.txt", "", "", 100, 2,
    ),
    _Layout(
        "cifar-100", "cifar-100-python", False, ("train",), ("test",), "meta",
        "fine_labels", "fine_label_names", 100, 0,
    ),
)  # fmt: skip


def find_cifar(source: Path) -> Original | None:
    """CIFAR in `source` or in the folder that its archive unpacks to; the binary version first.

    Raises:
        InputError: both CIFARs are there.
        DataError: a file is damaged, or holds what CIFAR does not.
    """
    found = {
        layout.kind: (folder, layout)
        for layout in reversed(_LAYOUTS)
        for folder in below(source, (layout.folder,))
        if all((folder / n).is_file() for n in (*layout.train, *layout.test, layout.names))
    }
    if len(found) > 1:
        raise InputError(f"{source} holds cifar-10 and cifar-100", "Name the folder of one.")
    return _open(*found.popitem()[1]) if found else None


def _open(folder: Path, layout: _Layout) -> Original:
    kind: type[_Batches] = _Binary if layout.binary else _Pickled
    return Original(
        layout.kind,
        {"train": kind(folder, layout.train, layout), "val": kind(folder, layout.test, layout)},
        _class_names(folder, layout),
    )


def _class_names(folder: Path, layout: _Layout) -> tuple[str, ...]:
    path = folder / layout.names
    names: Any
    if layout.binary:
        names = path.read_bytes()[: 1 << 16].decode("utf-8", "replace").split()
    else:
        document = load_plain(path)
        names = document.get(layout.names_key) if isinstance(document, dict) else None
    if not isinstance(names, list) or len(names) != layout.classes:
        raise DataError(f"{path} does not name {layout.classes} classes")
    return tuple(printable(str(name).encode("utf-8", "replace")) for name in names)


class _Batches(PixelSplit):
    """The images of several files, one after the other."""

    def __init__(self, folder: Path, names: tuple[str, ...], layout: _Layout) -> None:
        self._paths, self._layout = tuple(folder / name for name in names), layout
        self._pixels: dict[int, NDArray[np.uint8]] = {}
        parts = [self._labels(place) for place in range(len(self._paths))]
        self._ends = np.cumsum([len(part) for part in parts])
        labels = np.concatenate(parts).astype(np.int64)
        if len(labels) and not 0 <= labels.min() <= labels.max() < layout.classes:
            raise DataError(f"{folder} has labels outside 0 to {layout.classes - 1}")
        super().__init__(labels, (32, 32, 3))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pixels": {}}

    def name(self, i: int) -> str:
        """`data_batch_1 #17`."""
        place, row = self._locate(i)
        return f"{self._paths[place].name} #{row}"

    def pixels(self, i: int) -> NDArray[np.uint8]:
        """[32, 32, 3]; stored as three planes."""
        place, row = self._locate(i)
        if place not in self._pixels:
            self._pixels[place] = self._open(place)
        planes: NDArray[np.uint8] = self._pixels[place][row].reshape(3, 32, 32)
        return planes.transpose(1, 2, 0)

    def _locate(self, i: int) -> tuple[int, int]:
        place = int(np.searchsorted(self._ends, i, side="right"))
        return place, i - int(self._ends[place - 1] if place else 0)

    def _labels(self, place: int) -> NDArray[np.int64]:
        raise NotImplementedError

    def _open(self, place: int) -> NDArray[np.uint8]:
        """[n, 3072]."""
        raise NotImplementedError


class _Binary(_Batches):
    def _labels(self, place: int) -> NDArray[np.int64]:
        return self._records(place)[:, self._layout.label_bytes - 1].astype(np.int64)

    def _open(self, place: int) -> NDArray[np.uint8]:
        return self._records(place)[:, self._layout.label_bytes :]

    def _records(self, place: int) -> NDArray[np.uint8]:
        path, length = self._paths[place], self._layout.label_bytes + _PIXELS
        if path.stat().st_size % length:
            raise DataError(
                f"{path} is damaged: its size is no multiple of {length} bytes, a record's"
            )
        records: NDArray[np.uint8] = np.memmap(path, np.uint8, "r").reshape(-1, length)
        return records


class _Pickled(_Batches):
    def _labels(self, place: int) -> NDArray[np.int64]:
        document = self._document(place)
        labels, data = document.get(self._layout.key), document.get("data")
        if not isinstance(labels, list) or not all(type(label) is int for label in labels):
            raise DataError(f"{self._paths[place]} has no list of {self._layout.key}")
        if not isinstance(data, PickledArray) or data.shape != (len(labels), _PIXELS):
            raise DataError(f"{self._paths[place]} has not {_PIXELS} pixels for each label")
        self._pixels[place] = data.to_numpy(self._paths[place])
        return np.array([min(max(label, -1), 1 << 31) for label in labels], np.int64)

    def _open(self, place: int) -> NDArray[np.uint8]:
        data = self._document(place)["data"]
        if not isinstance(data, PickledArray):
            raise DataError(f"{self._paths[place]} changed while it was read")
        return data.to_numpy(self._paths[place])

    def _document(self, place: int) -> dict[Any, Any]:
        document = load_plain(self._paths[place])
        if not isinstance(document, dict):
            raise DataError(f"{self._paths[place]} holds no batch of images")
        return document
