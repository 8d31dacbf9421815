from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from simsiam_zoo.catalog import create_component
from simsiam_zoo.evaluation.logistic import few
from simsiam_zoo.evaluation.protocol import Features, FeatureSplits


def test_a_share_of_each_class_is_taken_one_at_least_and_more_contain_fewer():
    labels = torch.tensor([0] * 300 + [1] * 50 + [2] * 4)
    one, ten = few(labels, 0.01, 0), few(labels, 0.1, 0)
    assert labels[one].bincount().tolist() == [3, 1, 1]
    assert labels[ten].bincount().tolist() == [30, 5, 1]
    assert set(one.tolist()) < set(ten.tolist())
    assert torch.equal(few(labels, 0.1, 0), ten)
    assert not torch.equal(few(labels, 0.1, 1), ten)
    assert one.tolist() == GOLDEN  # another choice is another version


GOLDEN = [145, 162, 264, 335, 351]


def test_each_figure_is_scikit_learns_on_those_labels():
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(3, 8, generator=generator)

    def draw(n: int) -> Features:
        labels = torch.arange(n) % 3
        return Features(centers[labels] + torch.randn(n, 8, generator=generator), labels)

    train, test = draw(600), draw(120)
    figures = create_component("protocol", "low-shot", seed=4)(FeatureSplits(train, test, 3))
    for figure, share in zip(figures, (0.01, 0.1), strict=True):
        ids = few(train.labels, share, 4)
        scaler = StandardScaler().fit(train.x[ids])
        theirs = LogisticRegression(max_iter=500)
        theirs.fit(scaler.transform(train.x[ids]), train.labels[ids])
        right = theirs.predict(scaler.transform(test.x)) == test.labels.numpy()
        assert figure.top1 == pytest.approx(right.mean())
        assert figure.details["labels"] == len(ids) == 600 * share
    assert [f.protocol for f in figures] == [
        "low-shot 1% (logistic (C=1), seed=4)",
        "low-shot 10% (logistic (C=1), seed=4)",
    ]
