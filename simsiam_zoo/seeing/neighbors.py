"""Which training images a network holds for similar, and what it confuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

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


def nearest(bank: Tensor, queries: Tensor, k: int, own: Sequence[int] | None = None) -> Neighbors:
    """The k rows of the bank [N, D] with the largest cosine similarity to each query [Q, D].

    Args:
        bank, queries: features.
        k: at most all of the bank.
        own: of each query, the row of the bank that it is itself, which is left out.
    """
    similarity = F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T
    if own is not None:
        similarity[torch.arange(len(queries)), torch.tensor(own)] = -torch.inf
    most = len(bank) - (own is not None)
    values, places = similarity.topk(min(k, most), dim=1)
    return Neighbors(places.tolist(), values.tolist())


@dataclass(frozen=True)
class Neighbors:
    """Of each query, places in the bank and cosine similarities, the most similar first."""

    places: list[list[int]]
    similarity: list[list[float]]


def confuse(predicted: Tensor, labels: Tensor, classes: int) -> Confusion:
    """Count predicted classes [Q] against labels [Q]; of many classes the worst are shown."""
    matrix = multiclass_confusion_matrix(predicted, labels, num_classes=classes)
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
