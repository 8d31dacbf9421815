"""What protocols measure on: frozen features, their labels, and how to get more."""

from __future__ import annotations

import dataclasses
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

    Args:
        x: [N, D] float32, on the CPU; of a large split it is a map of a file, to be read in parts.
        labels: [N] int64.
        ids: dense ids of the images, [N] int64, growing; None where nobody asked for them.
    """

    x: Tensor
    labels: Tensor
    ids: Tensor | None = None


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
    """The splits with labels that count from 0 without a gap, and with their number of classes.

    Labels that are numbers of a catalogue, 0 to 90,000 say, would need tables of that size. Where
    names are told, labels are their places, and stay.

    Returns:
        The splits, and the label that each class had; None where labels stay as they are.
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
        for rows in torch.split(split.x, _CHUNK):
            red, green, blue = rows.chunk(3, dim=1)
            if not (torch.equal(red, green) and torch.equal(red, blue)):
                return splits
    return tuple(
        dataclasses.replace(split, x=split.x[:, : split.x.shape[1] // 3]) for split in splits
    )
