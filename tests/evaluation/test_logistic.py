from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from simsiam_zoo.evaluation.features import Features
from simsiam_zoo.evaluation.logistic import LogisticProtocol


@pytest.fixture(scope="module")
def splits() -> tuple[Features, Features]:
    """Overlapping classes on channels of very different scales; the test split lies elsewhere."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(4, 10, generator=generator)
    scales = torch.logspace(-3, 3, 10)

    def draw(n: int, shift: float) -> Features:
        labels = torch.randint(0, 4, (n,), generator=generator)
        x = centers[labels] + torch.randn(n, 10, generator=generator) + shift
        return Features(x * scales + 5, labels)

    return draw(300, 0.0), draw(200, 0.4)


@pytest.mark.parametrize("c", [1.0, 0.01])
def test_it_is_scikit_learns_logistic_regression_on_standardised_features(splits, c):
    train, test = splits
    figure = LogisticProtocol(c=c)(train, test, 4)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=500))
    theirs.fit(train.x.numpy(), train.labels.numpy())
    right = theirs.predict(test.x.numpy()) == test.labels.numpy()
    assert figure.protocol == f"logistic (C={c:g})"
    assert figure.top1 == pytest.approx(right.mean())
    assert np.array_equal(figure.correct.numpy(), right)
    assert 0.5 < figure.top1 < 1  # neither chance nor trivial
    assert figure.details["converged"] is True


def test_it_fits_on_the_training_split_alone_and_says_when_it_stopped_early(splits):
    train, test = splits
    whole = LogisticProtocol()(train, test, 4)
    part = Features(test.x[:50], test.labels[:50])
    assert torch.equal(LogisticProtocol()(train, part, 4).correct, whole.correct[:50])
    short = LogisticProtocol(max_iter=1)(train, test, 4)
    assert short.details == {"iterations": 1, "converged": False}


def test_classes_that_the_training_split_lacks_are_simply_never_predicted(splits):
    train, test = splits
    few = train.labels < 2
    figure = LogisticProtocol()(Features(train.x[few], train.labels[few]), test, 4)
    assert not figure.correct[test.labels >= 2].any()
    assert figure.correct[test.labels < 2].float().mean() > 0.7
