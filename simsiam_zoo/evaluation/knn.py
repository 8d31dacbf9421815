"""Weighted cosine k nearest neighbours (arXiv:1805.01978, section 3.4): no training, no tuning."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from simsiam_zoo.evaluation.bench import Bench
from simsiam_zoo.evaluation.protocol import Figure, check_labels, figure

_CHUNK = 1024  # queries at once: bounds the similarity matrix, changes no answer


class KnnProtocol:
    """The k most similar training images vote for their class with weight exp(similarity / t).

    Args:
        k: how many vote; at most all of the training set.
        t: temperature.
    """

    version = 1

    def __init__(self, *, k: int = 20, t: float = 0.1) -> None:
        self.k = k
        self.t = t

    def __call__(self, bench: Bench) -> list[Figure]:
        """Classify the test images by the training images. Raises InputError without labels."""
        train, test, classes = bench.train, bench.test, bench.classes
        check_labels(train, test, classes)
        predicted = knn_predict(train.x, train.labels, test.x, classes, self.k, self.t)
        name = f"knn (k={self.k}, t={self.t:g})"
        return [figure(name, self.version, predicted, test.labels, classes)]


def knn_predict(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, classes: int, k: int, t: float
) -> Tensor:
    """Classes [Q] of queries [Q, D] by a labelled bank [N, D]; the lower class wins a tie."""
    bank = F.normalize(bank, dim=1)
    k = min(k, len(bank))
    predicted = []
    for chunk in torch.split(F.normalize(queries, dim=1), _CHUNK):
        similarity, neighbors = (chunk @ bank.T).topk(k, dim=1)  # [q, k]
        # exp(s / t) overflows for small t; a common factor in each row changes no vote.
        weight = ((similarity - similarity[:, :1]) / t).exp()
        votes = weight.new_zeros(len(chunk), classes)
        votes.scatter_add_(1, bank_labels[neighbors], weight)
        predicted.append(votes.argmax(dim=1))
    return torch.cat(predicted)
