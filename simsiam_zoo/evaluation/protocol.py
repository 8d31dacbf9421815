"""What an evaluation protocol is: features in, one figure out, with a name and a version."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol as Interface

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy

from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.bench import Bench
from simsiam_zoo.evaluation.features import Features


@dataclass(frozen=True)
class Figure:
    """Top-1 accuracy by one protocol.

    Args:
        protocol: the name with its parameters, e.g. `knn (k=20, t=0.1)`; the figure means nothing
            without it.
        version: of the protocol; raised whenever its numbers would change.
        top1: share of test images whose label was predicted, 0 to 1.
        correct: [N] bool, one for each test image in id order.
        details: anything that a reader of the figure should know.
    """

    protocol: str
    version: int
    top1: float
    correct: Tensor
    details: dict[str, float | int | bool | str] = field(default_factory=dict)


class EvaluationProtocol(Interface):
    """The contract of a component of the kind `protocol`."""

    def __call__(self, bench: Bench) -> list[Figure]:
        """Fit on the training images alone, predict the test images; one figure or several."""
        ...


def check_labels(train: Features, test: Features, classes: int) -> None:
    """Refuse what no classifier can be measured on.

    Raises:
        InputError: no labels, one class only, or a label that is no class.
    """
    for name, split in (("training", train), ("test", test)):
        if int(split.labels.min()) < 0:
            raise InputError(f"the {name} images are not all labelled, so nothing can be measured")
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
    details: dict[str, float | int | bool | str] | None = None,
) -> Figure:
    """The figure of predicted classes [N] against labels [N]."""
    top1 = multiclass_accuracy(predicted, labels, num_classes=classes, average="micro")
    return Figure(protocol, version, float(top1), torch.eq(predicted, labels), details or {})
