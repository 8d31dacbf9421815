"""Logistic regression on frozen features, by scikit-learn."""

from __future__ import annotations

import warnings

import torch

from simsiam_zoo.evaluation.bench import Bench
from simsiam_zoo.evaluation.protocol import Figure, check_labels, figure


class LogisticProtocol:
    """Multinomial logistic regression by L-BFGS (scikit-learn), on standardised features.

    Mean and scale come from the training features. Good for small sets.

    Args:
        c: inverse strength of the l2 penalty.
        max_iter: most iterations; whether they sufficed is in the figure's details.
    """

    version = 1

    def __init__(self, *, c: float = 1.0, max_iter: int = 500) -> None:
        self.c = c
        self.max_iter = max_iter

    def __call__(self, bench: Bench) -> list[Figure]:
        """Fit on the training images, classify the test images; InputError without labels."""
        train, test, classes = bench.train, bench.test, bench.classes
        # scikit-learn takes most of a second to import: only runs that use it pay.
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        check_labels(train, test, classes)
        scaler = StandardScaler().fit(train.x.numpy())
        model = LogisticRegression(C=self.c, max_iter=self.max_iter)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the details say it
            model.fit(scaler.transform(train.x.numpy()), train.labels.numpy())
        predicted = torch.from_numpy(model.predict(scaler.transform(test.x.numpy())))
        iterations = int(model.n_iter_.max())
        return [
            figure(
                f"logistic (C={self.c:g})",
                self.version,
                predicted.long(),
                test.labels,
                classes,
                {"iterations": iterations, "converged": iterations < self.max_iter},
            )
        ]
