"""What protocols measure on: frozen features, their labels, and how to get more."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_CHUNK = 4096  # rows that are looked through at once


@dataclass(frozen=True)
class Features:
    """Features of one split.

    `chunks` and `take` read a file and do not map it: pages that were mapped count as this
    process's memory until the system wants them back, and would add up to all of the file.

    Args:
        x: [N, D] float32, on the CPU.
        labels: [N] int64.
        ids: dense ids of the images, [N] int64, growing; None where nobody asked for them.
        file: that x is mapped from, float32; its rows may be longer than those of x. None where x
            lies in memory.
    """

    x: Tensor
    labels: Tensor
    ids: Tensor | None = None
    file: Path | None = None

    def chunks(self, rows: int) -> Iterator[Tensor]:
        """x, so many rows at a time, the last chunk maybe smaller."""
        if self.file is None:
            yield from torch.split(self.x, rows)
            return
        width, stored = self.x.shape[1], self.x.stride(0)
        with self.file.open("rb") as file:
            for start in range(0, len(self.x), rows):
                count = min(rows, len(self.x) - start)
                read = np.fromfile(file, np.float32, count * stored).reshape(count, stored)
                yield torch.from_numpy(np.ascontiguousarray(read[:, :width]))

    def take(self, rows: Tensor) -> Tensor:
        """The rows [n] of x, [n, D] in memory."""
        if self.file is None:
            return self.x[rows]
        width, stored = self.x.shape[1], self.x.stride(0)
        out = np.empty((len(rows), width), np.float32)
        # Rows that follow each other in the file are read together.
        apart = (np.diff(rows.numpy()) != 1) | (width != stored)
        ends = [*(np.flatnonzero(apart) + 1).tolist(), len(rows)] if len(rows) else []
        with self.file.open("rb") as file:
            begin = 0
            for end in ends:
                at, part = 4 * stored * int(rows[begin]), out[begin:end].data
                if os.preadv(file.fileno(), [part], at) != part.nbytes:
                    raise EOFError(f"{self.file} is shorter than its features")
                begin = end
        return torch.from_numpy(out)

    def narrowed(self, width: int) -> Features:
        """The first `width` columns; those of a file stay there."""
        return dataclasses.replace(self, x=self.x[:, :width])


Augmented = Callable[[int, int], Iterator[Features]]
"""(epoch, batch) → this rank's share of the epoch's batches: features of augmented training views.

`batch` counts all ranks' images. The same epoch has the same views and the same order, for any
number of ranks; only whole batches are given.
"""


@dataclass(frozen=True)
class FeatureSplits:
    """One network's features, and the classes they are to tell apart.

    Args:
        train, test: of the centre views; x may be memory-mapped.
        classes: how many there are; labels are below it.
        augmented: gives an epoch of augmented training views; None where there are no images.
        folder: where a long protocol may keep what it needs to go on after an interruption.
        device: where a protocol computes.
    """

    train: Features
    test: Features
    classes: int
    augmented: Augmented | None = None
    folder: Path | None = None
    device: torch.device | str = "cpu"


def number_classes(
    splits: FeatureSplits, names: Sequence[str] | None
) -> tuple[FeatureSplits, list[int] | None]:
    """The splits with labels that count from 0 without a gap, so that no table has empty rows.

    Labels that are numbers of a catalogue, 0 to 90,000 say, would need tables of that size.

    Args:
        splits: `classes` is not looked at.
        names: of the classes, where they are told: then labels are the places of names, and stay.

    Returns:
        The splits with their number of classes; the label that each class had, or None where
        labels stay as they are.
    """
    labels = torch.cat([splits.train.labels, splits.test.labels])
    known = torch.from_numpy(np.unique(labels.numpy()))  # ascending
    count = max(len(names or ()), 1 + int(known[-1]))
    if names or len(known) == count:
        return dataclasses.replace(splits, classes=count), None

    def numbered(features: Features) -> Features:
        return dataclasses.replace(features, labels=torch.searchsorted(known, features.labels))

    def augmented(epoch: int, batch: int) -> Iterator[Features]:
        assert splits.augmented is not None
        yield from map(numbered, splits.augmented(epoch, batch))

    changed = dataclasses.replace(
        splits,
        train=numbered(splits.train),
        test=numbered(splits.test),
        classes=len(known),
        augmented=None if splits.augmented is None else augmented,
    )
    return changed, known.tolist()


def grey_once(*splits: Features) -> tuple[Features, ...]:
    """Raw pixels [N, 3 P] as [N, P] where all images are grey: repeats only cost time."""
    for split in splits:
        for rows in split.chunks(_CHUNK):
            red, green, blue = rows.chunk(3, dim=1)
            if not (torch.equal(red, green) and torch.equal(red, blue)):
                return splits
    return tuple(split.narrowed(split.x.shape[1] // 3) for split in splits)
