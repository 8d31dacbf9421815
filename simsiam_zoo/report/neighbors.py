"""Which training images a network holds for similar, and what it confuses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from simsiam_zoo.evaluation.protocol import confusion_matrix

_MOST_CLASSES = 20
"""A matrix of more has cells that nobody can read: the classes with most errors are shown."""


@dataclass(frozen=True)
class Confusion:
    """How often images of one class (row) were taken for another (column).

    Attributes:
        classes: labels of rows and columns.
        counts: [K][K].
        elsewhere: of each row, images taken for a class that is not shown.
        top1: share of all images that were right, 0 to 1; the classes not shown too.
        images: how many.
        total: number of classes, shown or not.
    """

    classes: list[int]
    counts: list[list[int]]
    elsewhere: list[int]
    top1: float
    images: int
    total: int


def without_own(ids: Tensor, own: Tensor) -> Tensor:
    """Columns [Q, k] of the neighbours that remain where each query is in the bank itself.

    Args:
        ids: rows of the bank [Q, k + 1], the most similar first.
        own: the query's own row [Q]; where it is not among them, the last is dropped.
    """
    others = ids != own[:, None]
    others[others.all(dim=1), -1] = False
    return others.nonzero()[:, 1].view(len(ids), ids.shape[1] - 1)


def confuse(predicted: Tensor, labels: Tensor, classes: int) -> Confusion:
    """Count predicted classes [Q] against labels [Q]; of many classes the worst are shown."""
    matrix = confusion_matrix(predicted, labels, classes)
    right = matrix.diagonal()
    shown = torch.arange(classes)
    if classes > _MOST_CLASSES:
        wrong = matrix.sum(dim=1) + matrix.sum(dim=0) - 2 * right
        shown = wrong.topk(_MOST_CLASSES).indices.sort().values
    part = matrix[shown][:, shown]
    elsewhere = matrix[shown].sum(dim=1) - part.sum(dim=1)
    top1 = float(right.sum()) / max(len(labels), 1)
    counts: list[list[int]] = part.tolist()
    return Confusion(shown.tolist(), counts, elsewhere.tolist(), top1, len(labels), classes)
