from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from simsiam_zoo.evaluation import knn
from simsiam_zoo.evaluation.features import Features
from simsiam_zoo.evaluation.knn import KnnProtocol, knn_predict

CLASSES = 5


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bank [200, 16], its labels, queries [90, 16]; float64, so that there are no ties."""
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(200, 16, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, CLASSES, (200,), generator=generator)
    queries = torch.randn(90, 16, generator=generator, dtype=torch.float64)
    # Lengths that matter to a dot product and not to a cosine.
    return bank * torch.rand(200, 1, generator=generator).exp() ** 3, labels, queries * 7


@pytest.mark.parametrize(("k", "t"), [(1, 0.1), (20, 0.1), (20, 1.0), (7, 0.02), (200, 0.5)])
def test_it_is_a_weighted_vote_by_cosine(data, k, t):
    bank, labels, queries = data
    predicted = knn_predict(bank, labels, queries, CLASSES, k, t).numpy()

    unit = bank.numpy() / np.linalg.norm(bank.numpy(), axis=1, keepdims=True)
    for query, answer in zip(queries.numpy(), predicted, strict=True):
        similarity = unit @ (query / np.linalg.norm(query))
        votes = np.zeros(CLASSES)
        for neighbor in np.argsort(-similarity)[:k]:
            votes[labels[neighbor]] += np.exp(similarity[neighbor] / t)
        assert answer == votes.argmax()

    theirs = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / t)
    ).fit(bank.numpy(), labels.numpy())
    assert (predicted == theirs.predict(queries.numpy())).all()


def test_chunks_change_no_answer(data, monkeypatch):
    bank, labels, queries = data
    whole = knn_predict(bank, labels, queries, CLASSES, 20, 0.1)
    for size in (1, 7, 90):
        monkeypatch.setattr(knn, "_CHUNK", size)
        assert torch.equal(knn_predict(bank, labels, queries, CLASSES, 20, 0.1), whole)


def test_more_neighbors_than_there_are_means_all(data):
    bank, labels, queries = data
    assert torch.equal(
        knn_predict(bank, labels, queries, CLASSES, 10_000, 0.1),
        knn_predict(bank, labels, queries, CLASSES, 200, 0.1),
    )


def test_a_tiny_temperature_does_not_overflow_and_leaves_the_nearest(data):
    bank, labels, queries = (data[0].float(), data[1], data[2].float())
    nearest = knn_predict(bank, labels, queries, CLASSES, 1, 0.1)
    assert torch.equal(knn_predict(bank, labels, queries, CLASSES, 20, 1e-6), nearest)
    assert torch.equal(
        knn_predict(-bank, labels, queries, CLASSES, 20, 1e-6),
        knn_predict(-bank, labels, queries, CLASSES, 1, 0.1),
    )


def test_a_tie_goes_to_the_lower_class():
    bank = torch.eye(2).repeat(2, 1)  # each direction once in class 3, once in class 1
    labels = torch.tensor([3, 3, 1, 1])
    assert knn_predict(bank, labels, torch.eye(2), 4, 4, 0.1).tolist() == [1, 1]


def test_the_figure_names_k_and_t_and_counts_what_is_right(data):
    bank, labels, queries = data
    test_labels = torch.arange(90) % CLASSES
    figure = KnnProtocol(k=9, t=0.07)(
        Features(bank.float(), labels), Features(queries.float(), test_labels), CLASSES
    )
    right = knn_predict(bank.float(), labels, queries.float(), CLASSES, 9, 0.07) == test_labels
    assert figure.protocol == "knn (k=9, t=0.07)"
    assert torch.equal(figure.correct, right)
    assert figure.top1 == pytest.approx(right.double().mean().item())
    assert KnnProtocol()(Features(bank.float(), labels), Features(bank.float(), labels), CLASSES)
