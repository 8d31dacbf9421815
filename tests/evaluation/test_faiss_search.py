"""FAISS in the place of torch: the same neighbours, ties included, and the same figures."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

from simsiam_zoo.catalog import catalog
from simsiam_zoo.errors import PluginError
from simsiam_zoo.evaluation import knn
from simsiam_zoo.evaluation.bench import Bench
from simsiam_zoo.evaluation.features import Features
from simsiam_zoo.evaluation.knn import KnnProtocol, nearest

needs_faiss = pytest.mark.skipif(find_spec("faiss") is None, reason="extra: faiss")


def search() -> knn.Search:
    return KnnProtocol(search="faiss").search


@needs_faiss
@pytest.mark.parametrize("rows", [7, 1000])  # of the bank at once
@pytest.mark.parametrize("k", [1, 20, 300])
def test_neighbours_are_those_of_torch(monkeypatch, rows, k):
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.randn(n, 24, generator=generator) for n in (300, 70))
    bank[17] = torch.nan
    expected, expected_ids = nearest(bank.double(), queries.double(), k)
    monkeypatch.setattr(knn, "_BANK_BYTES", rows * 24 * 4)
    similarity, ids = nearest(bank, queries, k, search())
    torch.testing.assert_close(similarity, expected.float(), rtol=0, atol=1e-6)
    swapped = ids != expected_ids  # only where rounding makes two similarities one
    assert swapped.float().mean() < 0.001
    assert torch.equal(ids.sort(dim=1).values, expected_ids.sort(dim=1).values)


@needs_faiss
@pytest.mark.parametrize("rows", [7, 100])
def test_of_equally_similar_rows_the_lower_ids_are_taken(monkeypatch, rows):
    """Integer axes: equal similarities are equal to the bit."""
    monkeypatch.setattr(knn, "_BANK_BYTES", rows * 4 * 4)
    axes = torch.randint(0, 4, (60,), generator=torch.Generator().manual_seed(3))
    bank = F.one_hot(axes, 4).float()
    queries = torch.tensor([[1.0, 0, 0, 0], [0, 0, 3.0, 0], [0, 0, 0, 0], [1, 1, 0, 0]])
    for k in (1, 17, 60):
        similarity, ids = nearest(bank, queries, k, search())
        expected, expected_ids = nearest(bank, queries, k)
        assert torch.equal(ids, expected_ids)
        torch.testing.assert_close(similarity, expected)


@needs_faiss
def test_the_figure_is_the_same_and_does_not_say_who_searched():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(400) % 7
    x = F.one_hot(labels, 16).float() + torch.randn(400, 16, generator=generator)
    bench = Bench(Features(x[:300], labels[:300]), Features(x[300:], labels[300:]), 7)
    ours = KnnProtocol()(bench)
    theirs = catalog().resolve("protocol", "knn:search=faiss").create()(bench)
    assert len(ours) == len(theirs) == 2
    for mine, other in zip(ours, theirs, strict=True):
        assert (other.protocol, other.version) == (mine.protocol, mine.version)
        assert other.details == mine.details
        assert torch.equal(other.correct, mine.correct)


def test_without_the_package_it_is_named_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(PluginError, match=r"pip install 'simsiam-zoo\[faiss\]'"):
        catalog().resolve("protocol", "knn:search=faiss").create()


def test_torch_searches_where_nothing_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert KnnProtocol().search is knn.search_by_torch
