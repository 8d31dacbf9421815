"""Nearest neighbours by FAISS (arXiv:2401.08281): exact search, for large sets."""

from __future__ import annotations

import torch
from torch import Tensor

from simsiam_zoo.errors import PluginError
from simsiam_zoo.evaluation.knn import search_by_torch


class FaissSearch:
    """A `knn.Search` by an exact inner-product index (`IndexFlatIP`), in float32 on the CPU.

    FAISS keeps any of the rows whose products tie with the last one it keeps. It is asked for one
    more than is wanted: the queries whose last wanted product ties are searched by torch, which
    keeps the lower rows.

    Raises:
        PluginError: FAISS is not installed.
    """

    def __init__(self) -> None:
        try:
            import faiss
        except ImportError:
            raise PluginError(
                "knn:search=faiss needs the package faiss-cpu",
                "Install it with: pip install 'simsiam-zoo[faiss]'; or leave out search=faiss.",
            ) from None
        self._faiss = faiss

    def __call__(self, queries: Tensor, part: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """As `knn.Search` says; what it gives is of the queries' type."""
        self._faiss.omp_set_num_threads(torch.get_num_threads())
        index = self._faiss.IndexFlatIP(part.shape[1])
        index.add(part.float().contiguous().numpy())
        # all queries at once: FAISS 1.15 takes ten times as long for each of less than 1,000
        more = min(k + 1, len(part))
        found = index.search(queries.float().contiguous().numpy(), more)
        products, rows = (torch.from_numpy(array) for array in found)
        tied = (products[:, -1] == products[:, k - 1]).nonzero()[:, 0] if more > k else rows[:0, 0]
        rows, order = rows[:, :k].sort(dim=1)
        products = products[:, :k].gather(1, order).to(queries)
        if len(tied):
            products[tied], rows[tied] = search_by_torch(queries[tied], part, k)
        return products, rows
