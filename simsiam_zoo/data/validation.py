"""A validation part of the training images: held out, and measured on in place of test images.

Which images are in it follows from their labels, their dense ids and the share alone: all runs on
the same data hold out the same ones.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.data.order import derive_key, keyed_hash
from simsiam_zoo.data.shards import Dataset, ShardSet
from simsiam_zoo.errors import InputError

_KEY = derive_key(0x56414C4944)  # "VALID"


class ShardSubset(ShardSet):
    """Some samples of a shard set: their dense ids are 0 to n - 1, in the order that they had.

    `chosen` are their ids in `whole`, growing, int64 [n].
    """

    def __init__(self, whole: ShardSet, chosen: NDArray[np.int64]) -> None:
        super().__init__(whole.shards, whole.classes, whole.cache)
        self._chosen, self._starts = chosen, self.offsets
        self.offsets = chosen.searchsorted(self._starts)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the whole set's digest and of which samples are in this one."""
        sha256 = hashlib.sha256(super().digest.encode())
        sha256.update(self._chosen.astype("<i8").tobytes())
        return sha256.hexdigest()

    def labels(self) -> NDArray[np.int64]:
        """All labels by dense id [n]; -1 where there is none."""
        return super().labels()[self._chosen]

    def locate(self, id: int) -> tuple[int, int]:
        """The shard's number and the sample's in it. Raises IndexError."""
        shard, _ = super().locate(id)
        return shard, int(self._chosen[id] - self._starts[shard])


def hold_out(dataset: Dataset, share: float) -> Dataset:
    """The data set with a share of its training images in place of its test images.

    Each class gives its share (`stratified`); images without a label are a class of their own.

    Raises InputError where no image is held out or none is left, of all or of one class.
    """
    labels = dataset.train.labels()
    held = stratified(labels, round(share * len(labels)), _KEY)
    asked = f"data.validation = {share:g} of {len(labels):,} training images"
    if not held.any() or held.all():
        what = "holds out none" if not held.any() else "leaves none to train on"
        raise InputError(f"{asked} {what}", "Choose another share, or 0 to hold out none.")
    if len(lost := np.setdiff1d(labels[labels >= 0], labels[~held])):
        names = dataset.classes or ()
        first = names[lost[0]] if lost[0] < len(names) else lost[0]
        more = f" and of {len(lost) - 1:,} other classes" if len(lost) > 1 else ""
        raise InputError(
            f"{asked} leaves none of class {first}{more} to train on",
            "Choose a smaller share, or data with more images of each class.",
        )
    train, test = (ShardSubset(dataset.train, np.flatnonzero(part)) for part in (~held, held))
    return replace(dataset, train=train, test=test, measured_on="validation")


def stratified(labels: NDArray[np.int64], count: int, key: int) -> NDArray[np.bool_]:
    """Choose `count` samples, each class in proportion: a mask [n].

    The share of each class is rounded down; what is then missing goes to the classes with the
    largest remainders (the lower label first). Within a class a keyed hash of the index decides.
    """
    _, row, counts = np.unique(labels, return_inverse=True, return_counts=True)
    exact = counts * count / len(labels)
    wanted = np.floor(exact).astype(np.int64)
    order = np.argsort(wanted - exact, kind="stable")
    wanted[order[: count - int(wanted.sum())]] += 1
    # Class by class, each in the hash's order: the first of each class are chosen.
    by_class = np.lexsort((keyed_hash(np.arange(len(labels)), key), row))
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = np.zeros(len(labels), np.bool_)
    chosen[by_class] = place < np.repeat(wanted, counts)
    return chosen
