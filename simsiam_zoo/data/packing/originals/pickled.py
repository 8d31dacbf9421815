"""Pickles of plain data, read without running what they name.

A pickle names callables for the reader to call. Here it gets none but inert classes of our own in
place of NumPy's: they note what they are given, and an array of bytes is made of that afterwards.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.data.packing.originals.original import MAX_RESIDENT_BYTES
from simsiam_zoo.errors import DataError


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
