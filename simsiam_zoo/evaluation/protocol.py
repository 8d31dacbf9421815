"""What an evaluation protocol is: features in, figures out, each with a name and a version."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from typing import Protocol as Interface

import torch
from torch import Tensor

from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.bench import Bench
from simsiam_zoo.evaluation.features import Features
from simsiam_zoo.evaluation.metrics import (
    bootstrap_interval,
    class_accuracies,
    confusion_matrix,
    top_k_accuracy,
)

RANKS = 5
"""Classes that a prediction ranks, where there are so many: top-5 is taken of them."""


@dataclass(frozen=True)
class Figure:
    """What one protocol found; top-1 accuracy first of all.

    Args:
        protocol: the name with its parameters, e.g. `knn (k=20, t=0.1)`; the figure means nothing
            without it.
        version: of the protocol; raised whenever its numbers would change.
        top1: share of test images whose label was predicted, 0 to 1.
        correct: [N] bool, one for each test image in id order.
        details: anything that a reader of the figure should know.
        top5: share of test images whose label was among the best five; None where it was not asked
            for, or where there are no more than five classes.
        interval: 95% bootstrap interval of top-1 over the choice of test images.
        confusion: [classes, classes] int64, row the label and column the prediction.
    """

    protocol: str
    version: int
    top1: float
    correct: Tensor
    details: dict[str, Any] = field(default_factory=dict)
    top5: float | None = None
    interval: tuple[float, float] | None = None
    confusion: Tensor | None = None

    @property
    def per_class(self) -> list[float | None]:
        """Accuracy of each class; None where it has no test image."""
        return [] if self.confusion is None else class_accuracies(self.confusion)


class EvaluationProtocol(Interface):
    """The contract of a component of the kind `protocol`.

    One that trains on augmented views for many epochs, on all ranks, says `collective = True`:
    every rank calls it, and of a run's end only the trained network is measured by it.
    """

    def __call__(self, bench: Bench) -> list[Figure]:
        """Fit on the training images alone, predict the test images; one figure or several."""
        ...


def is_collective(protocol: EvaluationProtocol) -> bool:
    """Whether every rank has to call the protocol."""
    return bool(getattr(protocol, "collective", False))


def check_labels(train: Features, test: Features, classes: int) -> None:
    """Refuse what no classifier can be measured on.

    Raises:
        InputError: no images, no labels, one class only, or a label that is no class.
    """
    for name, split in (("training", train), ("test", test)):
        if not len(split.labels):
            raise InputError(f"there are no {name} images, so nothing can be measured")
        if int(split.labels.min()) < 0:
            raise InputError(
                f"the {name} images are not all labelled, so nothing can be measured",
                "Pack them with their classes, or embed them without labels.",
            )
        if int(split.labels.max()) >= classes:
            raise InputError(
                f"a {name} image has label {int(split.labels.max())}, of {classes} classes"
            )
    if bool((train.labels == train.labels[0]).all()):
        raise InputError("the training images are all of one class, so nothing can be measured")


def figure(
    protocol: str,
    version: int,
    predicted: Tensor,
    labels: Tensor,
    classes: int,
    details: dict[str, Any] | None = None,
) -> Figure:
    """The figure of predictions.

    Args:
        protocol, version, details: as in `Figure`.
        predicted: classes [N]; or the best classes [N, R], the best first, which gives top-5 where
            R is 5 and there are more classes than that.
        labels: [N].
        classes: how many there are.
    """
    best = predicted if predicted.ndim == 1 else predicted[:, 0]
    correct = torch.eq(best, labels)
    ranked = predicted.ndim == 2 and predicted.shape[1] >= RANKS and classes > RANKS
    return Figure(
        protocol,
        version,
        int(correct.sum()) / len(labels),
        correct,
        details or {},
        top5=top_k_accuracy(predicted, labels, classes, RANKS) if ranked else None,
        interval=bootstrap_interval(correct),
        confusion=confusion_matrix(best, labels, classes),
    )
