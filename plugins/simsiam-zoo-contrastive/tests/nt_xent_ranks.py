"""One rank of a step under DDP: `RANK`, `WORLD_SIZE` and so on say which.

    python nt_xent_ranks.py OUT

Rank 0 writes the gradients, name → tensor, to OUT.
"""

from __future__ import annotations

import sys

import torch
from torch import nn

from simsiam_zoo.model.heads import NoPredictor
from simsiam_zoo.plugin import Batch, Siamese, create_component
from simsiam_zoo.runtime import distributed
from simsiam_zoo_contrastive.nt_xent import NTXentLoss

ROWS = 8
"""Of the global batch."""


def gradients(rank: int, world: int, stop: bool) -> dict[str, torch.Tensor]:
    """Of one step on this rank's share of the batch, as DDP leaves them. Without BN."""
    torch.manual_seed(0)
    views = torch.randn(2, ROWS, 3, 2, 2, dtype=torch.float64)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh())
    head, predictor = nn.Linear(8, 5), nn.Linear(5, 5) if stop else NoPredictor()
    policy = (
        create_component("gradient", "stop-gradient")
        if stop
        else create_component("gradient", "none", sides="one")
    )
    loss = NTXentLoss(temperature=0.5)
    siamese = Siamese(backbone, head, predictor, policy, loss, in_dim=8, dim=5).double()
    share = ROWS // world
    mine = Batch([view[rank * share : (rank + 1) * share] for view in views])
    model = nn.parallel.DistributedDataParallel(siamese) if world > 1 else siamese
    model(mine).backward()
    return {f"{stop} {name}": p.grad for name, p in siamese.named_parameters()}


def main(out: str) -> None:
    with distributed.joined():
        rank, world = distributed.rank(), distributed.world_size()
        found = {**gradients(rank, world, stop=False), **gradients(rank, world, stop=True)}
        if rank == 0:
            torch.save(found, out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
