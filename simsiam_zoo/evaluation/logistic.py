"""Logistic regression on frozen features, by scikit-learn: on all labels, and on few."""

from __future__ import annotations

import dataclasses
import warnings

import torch
from torch import Tensor

from simsiam_zoo.data.order import derive_key
from simsiam_zoo.evaluation.protocol import (
    Features,
    FeatureSplits,
    Score,
    check_labels,
    make_score,
    of_each_class,
    refuse_infinite,
)

SHARES = (0.01, 0.1)
"""Of the labels of each class; the paper's field reports both."""


class LogisticProtocol:
    """Multinomial logistic regression by L-BFGS (scikit-learn), on standardised features.

    Mean and scale come from the training features. Good for small sets.

    Args:
        c: inverse strength of the l2 penalty.
        max_iter: most iterations; whether they sufficed is in the figure's details.
    """

    version = 1

    def __init__(self, *, c: float, max_iter: int) -> None:
        self.c, self.max_iter = c, max_iter
        # Most of a second to import, so only runs that use it pay; and here, so that what is wrong
        # with it ends a run at its start.
        from sklearn import exceptions, linear_model, pipeline, preprocessing
        from threadpoolctl import threadpool_limits

        self._limits = threadpool_limits
        self._unconverged = exceptions.ConvergenceWarning
        self._model = pipeline.make_pipeline(
            preprocessing.StandardScaler(), linear_model.LogisticRegression(C=c, max_iter=max_iter)
        )

    def __call__(self, splits: FeatureSplits) -> list[Score]:
        """Fit on the training images, classify the test images.

        InputError: no labels, or features that are not finite.
        """
        train, test, classes = splits.train, splits.test, splits.classes
        check_labels(train, test, classes)
        refuse_infinite(train, test)
        model = self._model
        # The BLAS of scipy takes every core otherwise, and its threads wait for one another in
        # loops: beside other runs that takes two to three times as long.
        threads = self._limits(torch.get_num_threads(), user_api="blas")
        with threads, warnings.catch_warnings():
            # The details say whether it converged.
            warnings.simplefilter("ignore", self._unconverged)
            model.fit(train.x.contiguous().numpy(), train.labels.numpy())
        predicted = torch.from_numpy(model.predict(test.x.contiguous().numpy())).long()
        iterations = int(model[-1].n_iter_.max())
        details = {"iterations": iterations, "converged": iterations < self.max_iter}
        name = f"logistic (C={self.c:g})"
        return [make_score(name, self.version, predicted, test.labels, classes, details)]


class LowShotProtocol:
    """Logistic regression on 1% and on 10% of each class's labels, which a fixed seed chooses."""

    version = 1

    def __init__(self, *, seed: int, c: float, max_iter: int) -> None:
        self.seed = seed
        self.classifier = LogisticProtocol(c=c, max_iter=max_iter)

    def __call__(self, splits: FeatureSplits) -> list[Score]:
        """Fit on few training images, classify the test images; InputError without labels."""
        check_labels(splits.train, splits.test, splits.classes)
        figures = []
        for share in SHARES:
            ids = few(splits.train.labels, share, self.seed)
            train = Features(splits.train.x[ids], splits.train.labels[ids])
            (found,) = self.classifier(dataclasses.replace(splits, train=train, augmented=None))
            by = f"{found.protocol} version {found.version}"
            details = {"labels": len(ids), "seed": self.seed, "classifier": by, **found.details}
            name = f"low-shot {100 * share:g}% ({found.protocol}, seed={self.seed})"
            figures.append(
                dataclasses.replace(found, protocol=name, version=self.version, details=details)
            )
        return figures


def few(labels: Tensor, share: float, seed: int) -> Tensor:
    """Ids of a share of each class, halves rounded up, one at least; [n] int64 in order.

    Which of a class are taken a keyed hash of their ids decides: a larger share contains a smaller.
    """
    key = derive_key(0x4C4F57, seed)  # "LOW"
    return of_each_class(labels, key, lambda count: max(1, int(share * count + 0.5)))
