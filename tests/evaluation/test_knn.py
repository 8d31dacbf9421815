from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier

from simsiam_zoo.catalog import create_component
from simsiam_zoo.evaluation import knn
from simsiam_zoo.evaluation.knn import KnnProtocol, nearest, vote
from simsiam_zoo.evaluation.protocol import Features, FeatureSplits, Score

CLASSES = 5
GOLDEN = [(3, 87), (3, 88)]


def knn_predict(
    bank: torch.Tensor, bank_labels: torch.Tensor, queries: torch.Tensor, k: int, t: float
) -> torch.Tensor:
    """Classes [Q] of queries [Q, D] by a labelled bank [N, D]."""
    similarity, ids = nearest(bank, queries, min(k, len(bank)))
    return vote(similarity, bank_labels[ids], t)[:, 0]


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
    predicted = knn_predict(bank, labels, queries, k, t).numpy()

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


def test_chunks_of_queries_and_of_the_bank_change_no_answer(data, monkeypatch):
    bank, labels, queries = data
    whole = nearest(bank, queries, 20)
    predicted = knn_predict(bank, labels, queries, 20, 0.1)
    for chunk, rows in ((1, 200), (7, 3), (90, 1), (40, 64)):
        monkeypatch.setattr(knn, "_CHUNK", chunk)
        monkeypatch.setattr(knn, "_BANK_BYTES", rows * 16 * 8)
        similarity, ids = nearest(bank, queries, 20)
        assert torch.equal(ids, whole[1])
        torch.testing.assert_close(similarity, whole[0], rtol=0, atol=1e-14)
        assert torch.equal(knn_predict(bank, labels, queries, 20, 0.1), predicted)


@pytest.mark.parametrize("rows", [1, 3, 8, 100])
def test_of_equally_similar_rows_the_lower_ids_are_taken_whatever_the_chunks(monkeypatch, rows):
    """Integer axes: equal similarities are equal to the bit."""
    monkeypatch.setattr(knn, "_BANK_BYTES", rows * 4 * 4)
    axes = torch.randint(0, 4, (60,), generator=torch.Generator().manual_seed(3))
    bank = F.one_hot(axes, 4).float()
    queries = torch.tensor([[1.0, 0, 0, 0], [0, 0, 3.0, 0], [0, 0, 0, 0], [1, 1, 0, 0]])
    for k in (1, 5, 17, 60):
        similarity, ids = nearest(bank, queries, k)
        exact = F.normalize(queries, dim=1) @ bank.T
        for row in range(4):
            expected = sorted(range(60), key=lambda i: (-exact[row, i].item(), i))[:k]
            assert ids[row].tolist() == expected
            assert torch.equal(similarity[row], exact[row, expected])


def test_a_row_that_is_not_finite_is_like_nothing():
    bank = torch.tensor([[float("nan"), 1.0], [float("inf"), 1.0], [-1.0, 0.0], [1.0, 0.0]])
    similarity, ids = nearest(bank, torch.tensor([[1.0, 0.0]]), 4)
    assert ids.tolist() == [[3, 0, 1, 2]]
    assert similarity.tolist() == [[1.0, 0.0, 0.0, -1.0]]


def test_more_neighbors_than_there_are_means_all(data):
    bank, labels, queries = data
    assert torch.equal(
        knn_predict(bank, labels, queries, 10_000, 0.1),
        knn_predict(bank, labels, queries, 200, 0.1),
    )


def test_a_tiny_temperature_does_not_overflow_and_leaves_the_nearest(data):
    bank, labels, queries = (data[0].float(), data[1], data[2].float())
    nearest = knn_predict(bank, labels, queries, 1, 0.1)
    assert torch.equal(knn_predict(bank, labels, queries, 20, 1e-6), nearest)
    assert torch.equal(
        knn_predict(-bank, labels, queries, 20, 1e-6),
        knn_predict(-bank, labels, queries, 1, 0.1),
    )


def test_of_equal_votes_the_class_of_the_nearer_neighbor_wins():
    """Of equally near ones the lower id: numbering the classes otherwise changes nothing."""
    bank = torch.eye(2).repeat(2, 1)  # each direction once in class 3, once in class 1
    for first, second in ((3, 1), (1, 3)):
        labels = torch.tensor([first, first, second, second])
        assert knn_predict(bank, labels, torch.eye(2), 4, 0.1).tolist() == [first, first]


def test_classes_are_ranked_by_their_votes_and_those_without_a_vote_have_no_rank():
    similarity = torch.tensor([[0.9, 0.8, 0.7, 0.6]])
    labels = torch.tensor([[6, 2, 2, 4]])
    # e^9 against e^8 + e^7, then e^6
    assert vote(similarity, labels, 0.1).tolist() == [[6, 2, 4, -1, -1]]
    assert vote(similarity, labels, 1.0).tolist() == [[2, 6, 4, -1, -1]]
    assert vote(similarity, labels % 2, 1.0).tolist() == [[0, -1, -1, -1, -1]]


def test_the_votes_are_those_of_a_table_of_all_classes():
    generator = torch.Generator().manual_seed(5)
    similarity = torch.rand(70, 30, generator=generator).sort(dim=1, descending=True).values
    labels = torch.randint(0, 12, (70, 30), generator=generator)
    weight = (similarity.double() / 0.3).exp()
    votes = torch.stack([(weight * (labels == c)).sum(dim=1) for c in range(12)], dim=1)
    assert torch.equal(vote(similarity, labels, 0.3), votes.argsort(dim=1, descending=True)[:, :5])


@pytest.mark.parametrize("k", [1, 3, 20, 200])
def test_top_5_counts_no_class_without_a_vote_and_other_numbers_of_classes_change_nothing(data, k):
    bank, _, queries = data
    generator = torch.Generator().manual_seed(6)
    train = torch.randint(0, 40, (200,), generator=generator)
    test = torch.randint(0, 40, (90,), generator=generator)
    number = torch.randperm(40, generator=generator)
    found = []
    for of_train, of_test in ((train, test), (number[train], number[test])):
        splits = FeatureSplits(Features(bank, of_train), Features(queries, of_test), 40)
        (score,) = create_component("protocol", "knn", k=k)(splits)
        found.append((score.top1, score.top5))
        assert score.top5 is not None
        assert score.top5 >= score.top1
        if k == 1:
            assert score.top5 == score.top1
    assert found[0] == found[1]


def test_the_figure_names_k_and_t_and_counts_what_is_right(data):
    bank, labels, queries = data
    test_labels = torch.arange(90) % CLASSES
    splits = FeatureSplits(
        Features(bank.float(), labels), Features(queries.float(), test_labels), CLASSES
    )
    (figure,) = KnnProtocol(k=9, t=0.07)(splits)
    right = knn_predict(bank.float(), labels, queries.float(), 9, 0.07) == test_labels
    assert figure.protocol == "knn (k=9, t=0.07)"
    assert figure.version == 3
    assert torch.equal(figure.correct, right)
    assert figure.top1 == pytest.approx(right.double().mean().item())


def test_without_k_one_pass_gives_20_and_200_neighbors_or_all_of_a_smaller_bank(data):
    bank, labels, queries = data

    def figures(n: int, protocol: KnnProtocol) -> list[Score]:
        train, test = Features(bank[:n], labels[:n]), Features(queries, torch.arange(90) % CLASSES)
        return protocol(FeatureSplits(train, test, CLASSES))

    both = figures(200, create_component("protocol", "knn"))
    assert [f.protocol for f in both] == ["knn (k=20, t=0.1)", "knn (k=200, t=0.1)"]
    for figure, k in zip(both, (20, 200), strict=True):
        assert torch.equal(
            figure.correct, figures(200, create_component("protocol", "knn", k=k))[0].correct
        )
    assert [f.protocol for f in figures(150, create_component("protocol", "knn"))] == [
        "knn (k=20, t=0.1)",
        "knn (k=150, t=0.1)",
    ]
    assert [f.protocol for f in figures(12, create_component("protocol", "knn"))] == [
        "knn (k=12, t=0.1)"
    ]


def test_golden_figures(data):
    """Of version 3: another number here is another version."""
    bank, labels, queries = data
    centers = torch.randn(CLASSES, 16, generator=torch.Generator().manual_seed(9)).double()
    test_labels = torch.arange(90) % CLASSES
    train = Features((bank + 3 * centers[labels]).float(), labels)
    test = Features((queries / 7 + centers[test_labels]).float(), test_labels)
    found = create_component("protocol", "knn")(FeatureSplits(train, test, CLASSES))
    assert [(f.version, int(f.correct.sum())) for f in found] == GOLDEN


def test_similarities_are_in_full_fp32_whatever_training_uses(data, monkeypatch):
    bank, _, queries = data
    seen, own = [], knn._directions

    def directions(x: torch.Tensor) -> torch.Tensor:
        seen.append(torch.backends.cuda.matmul.allow_tf32)
        return own(x)

    monkeypatch.setattr(knn, "_directions", directions)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        nearest(bank, queries, 5)
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    assert seen == [False, False]
