"""Few labels: classifiers of frozen features that see a small share of the training labels."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from simsiam_zoo.data.keyed import derive_key, keyed_order
from simsiam_zoo.evaluation.bench import Bench
from simsiam_zoo.evaluation.features import Features
from simsiam_zoo.evaluation.logistic import LogisticProtocol
from simsiam_zoo.evaluation.protocol import Figure, check_labels

SHARES = (0.01, 0.1)
"""Of the labels of each class; the paper's field reports both."""


class LowShotProtocol:
    """Logistic regression on 1% and on 10% of the labels, which a fixed seed chooses.

    Of each class the share is taken, rounded, and one image at least. The classifier is
    `LogisticProtocol` as it is by default but for `c`.

    Args:
        seed: chooses the images.
        c: inverse strength of the l2 penalty.
    """

    version = 1

    def __init__(self, *, seed: int = 0, c: float = 1.0) -> None:
        self.seed = seed
        self.classifier = LogisticProtocol(c=c)

    def __call__(self, bench: Bench) -> list[Figure]:
        """Fit on few training images, classify the test images; InputError without labels."""
        check_labels(bench.train, bench.test, bench.classes)
        figures = []
        for share in SHARES:
            ids = few(bench.train.labels, share, self.seed)
            train = Features(bench.train.x[ids], bench.train.labels[ids])
            (found,) = self.classifier(dataclasses.replace(bench, train=train, augmented=None))
            by = f"{found.protocol} version {found.version}"
            details = {"labels": len(ids), "seed": self.seed, "classifier": by, **found.details}
            name = f"low-shot {100 * share:g}% ({found.protocol}, seed={self.seed})"
            figures.append(
                dataclasses.replace(found, protocol=name, version=self.version, details=details)
            )
        return figures


def few(labels: Tensor, share: float, seed: int) -> Tensor:
    """Ids of a share of each class, one at least, in the order of ids; [n] int64.

    Which of a class are taken a keyed hash of their ids decides; a larger share contains a smaller
    one.

    Args:
        labels: [N].
        share: of each class's images, rounded to the nearest, halves up.
        seed: of the hash.
    """
    key = derive_key(0x4C4F57, seed)  # "LOW"
    chosen = []
    for label in np.unique(labels.numpy()).tolist():
        members = np.flatnonzero(labels.numpy() == label)
        count = max(1, int(share * len(members) + 0.5))
        chosen.append(members[keyed_order(members, key)[:count]])
    return torch.from_numpy(np.sort(np.concatenate(chosen)))
