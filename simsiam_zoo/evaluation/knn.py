"""Weighted cosine k nearest neighbours (arXiv:1805.01978, section 3.4): no training, no tuning."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from simsiam_zoo.evaluation.bench import Bench
from simsiam_zoo.evaluation.features import Features
from simsiam_zoo.evaluation.protocol import RANKS, Figure, check_labels, figure

KS = (20, 200)
"""Numbers of neighbours where none is given; both are voted by in one pass."""

_CHUNK = 1024  # queries at once: bounds the similarity matrix, changes no answer
_BANK_BYTES = 2**26  # of the bank at once: 8,192 features of width 2,048


Search = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""(queries [Q, D], part [n, D], k <= n) → the k largest inner products [Q, k] and their rows of the
part [Q, k], which grow from left to right; of equal products those with lower rows are taken."""


class KnnProtocol:
    """The k most similar training images vote for their class with weight exp(similarity / t).

    Args:
        k: how many vote, at most all of the training set; None gives a figure for each of `KS`.
        t: temperature.
        search: `torch`, or `faiss` for large sets. The answers are the same, so that the figure
            does not say which; but for similarities that differ by rounding alone.

    Raises:
        PluginError: FAISS is asked for and not installed.
    """

    version = 2

    def __init__(self, *, k: int | None = None, t: float = 0.1, search: str = "torch") -> None:
        self.ks = KS if k is None else (k,)
        self.t = t
        self.search: Search = search_by_torch
        if search == "faiss":
            from simsiam_zoo.evaluation.faiss_search import FaissSearch

            self.search = FaissSearch()

    def __call__(self, bench: Bench) -> list[Figure]:
        """Classify the test images by the training images. Raises InputError without labels."""
        train, test, classes = bench.train, bench.test, bench.classes
        check_labels(train, test, classes)
        ks = list(dict.fromkeys(min(k, len(train.x)) for k in self.ks))
        similarity, ids = nearest(train, test.x, max(ks), self.search)
        figures = []
        for k in ks:
            ranked = vote(similarity[:, :k], train.labels[ids[:, :k]], classes, self.t)
            name = f"knn (k={k}, t={self.t:g})"
            figures.append(figure(name, self.version, ranked, test.labels, classes))
        return figures


def knn_predict(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, classes: int, k: int, t: float
) -> Tensor:
    """Classes [Q] of queries [Q, D] by a labelled bank [N, D]; the lower class wins a tie."""
    similarity, ids = nearest(bank, queries, min(k, len(bank)))
    return vote(similarity, bank_labels[ids], classes, t)[:, 0]


def nearest(
    bank: Features | Tensor, queries: Tensor, k: int, search: Search | None = None
) -> tuple[Tensor, Tensor]:
    """The k most similar rows of the bank for each query, by cosine.

    Of rows that are equally similar those with the lower id are taken. A row that is not finite has
    no direction, and a similarity of 0 to all.

    Memory: the queries and their neighbours, and one chunk of the bank, which is read once.

    Args:
        bank: [N, D]; features that lie in a file are read from there.
        queries: [Q, D].
        k: at most N.
        search: of a chunk of the bank; by default `search_by_torch`.

    Returns:
        Similarities [Q, k], the largest first (of equal ones the lower id), and ids [Q, k].
    """
    search = search or search_by_torch
    queries = _directions(queries)
    if isinstance(bank, Tensor):
        bank = Features(bank, torch.empty(0))
    rows = max(1, _BANK_BYTES // (bank.x.shape[1] * bank.x.element_size()))
    found: list[tuple[Tensor, Tensor]] = [
        (chunk.new_empty(len(chunk), 0), torch.empty(len(chunk), 0, dtype=torch.int64))
        for chunk in torch.split(queries, _CHUNK)
    ]
    for number, chunk_of_bank in enumerate(bank.chunks(rows)):
        part = _directions(chunk_of_bank)
        new = search(queries, part, min(k, len(part)))
        for place, news in enumerate(zip(*(torch.split(x, _CHUNK) for x in new), strict=True)):
            # the ids grow from left to right: those already found are lower than the part's
            similarity = torch.cat((found[place][0], news[0]), dim=1)
            ids = torch.cat((found[place][1], number * rows + news[1]), dim=1)
            columns = _largest(similarity, min(k, similarity.shape[1]))
            found[place] = similarity.gather(1, columns), ids.gather(1, columns)
    ordered = [_in_order(*pair) for pair in found]
    return torch.cat([s for s, _ in ordered]), torch.cat([i for _, i in ordered])


def search_by_torch(queries: Tensor, part: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """A `Search` that computes all products, of some queries at a time, and keeps the largest."""
    products = queries.new_empty(len(queries), k)
    rows = torch.empty(len(queries), k, dtype=torch.int64)
    for start in range(0, len(queries), _CHUNK):
        some = slice(start, start + _CHUNK)
        of_all = queries[some] @ part.T
        rows[some] = _largest(of_all, k)
        products[some] = of_all.gather(1, rows[some])
    return products, rows


def vote(similarity: Tensor, labels: Tensor, classes: int, t: float) -> Tensor:
    """The classes with the most votes, the best first; the lower class wins a tie.

    Args:
        similarity, labels: of each query's neighbours, [Q, k].
        classes: how many there are.
        t: temperature; a vote weighs exp(similarity / t).

    Returns:
        [Q, R]; R is 5, or the number of classes if that is smaller.
    """
    ranked = []
    for similar, label in zip(
        torch.split(similarity, _CHUNK), torch.split(labels, _CHUNK), strict=True
    ):
        # exp(s / t) overflows for small t; a common factor in each row changes no vote.
        weight = ((similar.double() - similar[:, :1].double()) / t).exp()
        votes = weight.new_zeros(len(similar), classes).scatter_add_(1, label, weight)
        order = votes.sort(dim=1, descending=True, stable=True).indices
        ranked.append(order[:, : min(RANKS, classes)])
    return torch.cat(ranked)


def _directions(x: Tensor) -> Tensor:
    return F.normalize(x, dim=1).nan_to_num(0.0, 0.0, 0.0)


def _largest(values: Tensor, k: int) -> Tensor:
    """Columns [Q, k] of the largest values in each row, from left to right; of equals the left."""
    if k == values.shape[1]:
        return torch.arange(k).expand(len(values), -1)
    top, columns = values.topk(k + 1, dim=1)
    columns = columns[:, :k].sort(dim=1).values
    tied = (top[:, k] == top[:, k - 1]).nonzero()[:, 0]  # `topk` took any of them
    if len(tied):
        rows, least = values[tied], top[tied, k - 1 : k]
        above, equal = rows > least, rows == least
        room = k - above.sum(dim=1, keepdim=True)
        chosen = above | (equal & (equal.cumsum(dim=1) <= room))
        columns[tied] = chosen.nonzero()[:, 1].view(-1, k)
    return columns


def _in_order(similarity: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The most similar first; of equals the one to the left."""
    similarity, order = similarity.sort(dim=1, descending=True, stable=True)
    return similarity, ids.gather(1, order)
