"""What is counted of predictions: accuracies, the confusion matrix, and how sure they are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

RESAMPLES = 1000
"""Bootstrap resamples of the test images."""

_SEED = 0
_CHUNK = 4096  # images whose scores are in memory at once


def top_k_accuracy(ranked: Tensor, labels: Tensor, classes: int, k: int) -> float:
    """Share of images whose label is among the first k of their ranked classes.

    Args:
        ranked: [N, R], R >= k, the best class first.
        labels: [N].
        classes: how many there are; more than k.
        k: how many may be guessed.
    """
    from torchmetrics.functional.classification import multiclass_accuracy  # a second to import

    right = 0.0
    points = torch.arange(k, 0, -1, dtype=torch.float32)
    for some, truth in zip(torch.split(ranked, _CHUNK), torch.split(labels, _CHUNK), strict=True):
        scores = torch.zeros(len(some), classes)
        scores.scatter_(1, some[:, :k], points.expand(len(some), -1))
        accuracy = multiclass_accuracy(scores, truth, num_classes=classes, average="micro", top_k=k)
        right += float(accuracy) * len(some)
    return round(right) / len(labels)  # shares of chunks, back to a count of images


def confusion_matrix(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts [classes, classes] int64: row the label, column the prediction."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    matrix: Tensor = multiclass_confusion_matrix(predicted, labels, num_classes=classes)
    return matrix


def class_accuracies(confusion: Tensor) -> list[float | None]:
    """Share of each class's images that were classified right; None where there is no image."""
    counts = confusion.sum(dim=1)
    right = confusion.diagonal()
    pairs = zip(right.tolist(), counts.tolist(), strict=True)
    return [hits / count if count else None for hits, count in pairs]


def bootstrap_interval(correct: Tensor) -> tuple[float, float]:
    """95% percentile bootstrap interval of an accuracy, over the choice of test images.

    A resample of N images that are right or wrong, drawn with replacement, has as many right ones
    as a binomial draw of N with the share that was right: that is drawn, `RESAMPLES` times, always
    with the same seed.

    Args:
        correct: [N] bool.
    """
    n, right = len(correct), int(correct.sum())
    shares = np.random.default_rng(_SEED).binomial(n, right / n, RESAMPLES) / n
    low, high = np.quantile(shares, (0.025, 0.975))
    return float(low), float(high)
