"""What a protocol is given to measure on: frozen features, their labels, and how to get more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from simsiam_zoo.evaluation.features import Features

Augmented = Callable[[int, int], Iterator[Features]]
"""(epoch, batch) → this rank's share of the epoch's batches: features of augmented training views.

`batch` counts all ranks' images. The same epoch has the same views and the same order, for any
number of ranks; only whole batches are given.
"""


@dataclass(frozen=True)
class Bench:
    """One network's features, and the classes they are to tell apart.

    Args:
        train, test: of the centre views; train x may be memory-mapped.
        classes: how many there are.
        augmented: gives an epoch of augmented training views; None where there are no images.
        folder: where a long protocol may keep what it needs to go on after an interruption.
        device: where a protocol that trains something computes.
    """

    train: Features
    test: Features
    classes: int
    augmented: Augmented | None = None
    folder: Path | None = None
    device: torch.device | str = "cpu"
