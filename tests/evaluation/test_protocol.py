from __future__ import annotations

import pytest
import torch

from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.knn import KnnProtocol
from simsiam_zoo.evaluation.logistic import LogisticProtocol
from simsiam_zoo.evaluation.protocol import Features, FeatureSplits, make_score


def features(*labels: int) -> Features:
    return Features(torch.randn(len(labels), 3), torch.tensor(labels))


@pytest.mark.parametrize(
    "protocol",
    [KnnProtocol(k=None, t=0.1), LogisticProtocol(c=1.0, max_iter=500)],
    ids=["knn", "logistic"],
)
@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        (features(0, -1, 1), features(0, 1), "training images are not all labelled"),
        (features(0, 1), features(-1, 1), "test images are not all labelled"),
        (features(1, 1, 1), features(0, 1), "training images are all of one class"),
        (features(0, 3), features(0, 1), "training image has label 3, of 3 classes"),
        (features(0, 1), features(0, 7), "test image has label 7, of 3 classes"),
    ],
)
def test_what_cannot_be_measured_is_refused(protocol, train, test, words):
    with pytest.raises(InputError, match=words):
        protocol(FeatureSplits(train, test, 3))


def test_the_figure_is_the_share_of_images_and_not_of_classes():
    # Class 0 has three of four images: a mean over classes would say 1/2.
    made = make_score("p", 1, torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 0, 1]), 2)
    assert made.top1 == 0.75
    assert made.correct.tolist() == [True, True, True, False]
