"""Weighted cosine k nearest neighbours (arXiv:1805.01978, section 3.4): no training, no tuning."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from simsiam_zoo.evaluation.protocol import RANKS, FeatureSplits, Score, check_labels, make_score
from simsiam_zoo.runtime.device import full_fp32

KS = (20, 200)
"""Numbers of neighbours where none is given; both are voted by in one pass."""

_CHUNK = 1024  # queries at once: bounds the similarity matrix, changes no answer
_BANK_BYTES = 2**26  # of the bank at once: 8,192 features of width 2,048
_BANK_ROWS = 2**15  # at most, for narrow features: it bounds the similarity matrix too


class KnnProtocol:
    """The k most similar training images vote for their class with weight exp(similarity / t).

    A class that no neighbour votes for has no rank, and of equal votes the class of the more
    similar neighbour wins: other numbers for the same classes change nothing.

    Args:
        k: how many vote, at most all of the training set; None gives a score for each of `KS`.
        t: temperature.
    """

    version = 3

    def __init__(self, *, k: int | None, t: float) -> None:
        self.ks = KS if k is None else (k,)
        self.t = t

    def __call__(self, splits: FeatureSplits) -> list[Score]:
        """Classify the test images by the training images. Raises InputError without labels."""
        train, test, classes = splits.train, splits.test, splits.classes
        check_labels(train, test, classes)
        ks = list(dict.fromkeys(min(k, len(train.labels)) for k in self.ks))
        similarity, ids = nearest(train.x, test.x, max(ks), splits.device)
        scores = []
        for k in ks:
            ranked = vote(similarity[:, :k], train.labels[ids[:, :k]], self.t)
            name = f"knn (k={k}, t={self.t:g})"
            scores.append(make_score(name, self.version, ranked, test.labels, classes))
        return scores


@full_fp32()  # TF32 would make ties of neighbours that differ, and another order of others
def nearest(
    bank: Tensor, queries: Tensor, k: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """The k most similar rows of the bank for each query, by cosine.

    Of rows that are equally similar those with the lower id are taken. A row that is not finite has
    no direction, and a similarity of 0 to all.

    Args:
        bank: [N, D]; it may be mapped into memory, and is read once, in parts.
        queries: [Q, D].
        k: at most N.

    Returns:
        Similarities [Q, k], the largest first, and ids [Q, k]; on the CPU.
    """
    rows = min(max(1, _BANK_BYTES // (bank.shape[1] * bank.element_size())), _BANK_ROWS)
    chunks = torch.split(_directions(queries.to(device)), _CHUNK)
    found = [
        (chunk.new_empty(len(chunk), 0), chunk.new_empty(len(chunk), 0, dtype=torch.int64))
        for chunk in chunks
    ]
    for number, part in enumerate(torch.split(bank, rows)):
        part = _directions(part.to(device))
        for place, chunk in enumerate(chunks):
            products = chunk @ part.T
            new = _largest(products, min(k, len(part)))
            # the ids grow from left to right: those already found are lower than the part's
            similarity = torch.cat((found[place][0], products.gather(1, new)), dim=1)
            ids = torch.cat((found[place][1], number * rows + new), dim=1)
            columns = _largest(similarity, min(k, similarity.shape[1]))
            found[place] = similarity.gather(1, columns), ids.gather(1, columns)
    similarity, order = torch.cat([s for s, _ in found]).sort(dim=1, descending=True, stable=True)
    return similarity.cpu(), torch.cat([ids for _, ids in found]).gather(1, order).cpu()


def vote(similarity: Tensor, labels: Tensor, t: float) -> Tensor:
    """The classes with the most votes, the best first; of equal votes the more similar neighbour's.

    `similarity` and `labels` [Q, k] are of each query's neighbours, the most similar first; a vote
    weighs exp(similarity / t). Returns [Q, `RANKS`], -1 where no more classes were voted for.
    """
    parts = zip(torch.split(similarity, _CHUNK), torch.split(labels, _CHUNK), strict=True)
    return torch.cat([_vote(*part, t) for part in parts])


def _vote(similarity: Tensor, labels: Tensor, t: float) -> Tensor:
    # exp(s / t) overflows for small t; a common factor in each row changes no vote.
    weight = ((similarity.double() - similarity[:, :1].double()) / t).exp()
    # Neighbours by class, in each class the most similar first: it stands for the class.
    by_class, order = labels.sort(dim=1, stable=True)
    begins = F.pad(by_class[:, 1:] != by_class[:, :-1], (1, 0), value=True)
    number = begins.long().cumsum(dim=1) - 1
    votes = torch.zeros_like(weight).scatter_add_(1, number, weight.gather(1, order))
    votes = votes.gather(1, number).masked_fill_(~begins, -1)
    votes = torch.empty_like(votes).scatter_(1, order, votes)
    most, places = votes.sort(dim=1, descending=True, stable=True)
    ranked = labels.gather(1, places).masked_fill_(most < 0, -1)[:, :RANKS]
    return F.pad(ranked, (0, RANKS - ranked.shape[1]), value=-1)


def _directions(x: Tensor) -> Tensor:
    return F.normalize(x, dim=1).nan_to_num(0.0, 0.0, 0.0)


def _largest(values: Tensor, k: int) -> Tensor:
    """Columns [Q, k] of the largest values in each row, from left to right; of equals the left."""
    if k == values.shape[1]:
        return torch.arange(k, device=values.device).expand(len(values), -1)
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
