"""One rank of a step under DDP: `RANK`, `WORLD_SIZE` and so on say which.

    python sigreg_ranks.py OUT

Rank 0 writes the gradients, name → tensor, to OUT.
"""

from __future__ import annotations

import sys

import torch
from torch import nn

from simsiam_zoo.model.heads import NoPredictor
from simsiam_zoo.plugin import Batch, Siamese, create_component
from simsiam_zoo.runtime import distributed
from simsiam_zoo_sigreg.sigreg import SigRegLoss

ROWS, VIEWS = 8, 3
"""Of the global batch; of each image."""


def gradients(rank: int, world: int) -> dict[str, torch.Tensor]:
    """Of two steps on this rank's share of the batch, as DDP leaves them. Without BN."""
    torch.manual_seed(0)
    views = torch.randn(VIEWS, ROWS, 3, 2, 2, dtype=torch.float64)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh())
    policy = create_component("gradient", "view-mean", views=VIEWS)
    loss = SigRegLoss(dim=5, lambd=0.3, slices=16, knots=17, t_max=3.0)
    parts = (backbone, nn.Linear(8, 5), NoPredictor(), policy, loss)
    siamese = Siamese(*parts, in_dim=8, dim=5).double()
    share = ROWS // world
    mine = Batch([view[rank * share : (rank + 1) * share] for view in views])
    model = nn.parallel.DistributedDataParallel(siamese) if world > 1 else siamese
    found = {}
    for step in range(2):  # each has directions of its own
        siamese.zero_grad()
        model(mine).backward()
        found |= {f"{step} {n}": p.grad.clone() for n, p in siamese.named_parameters()}
        siamese.after_step(siamese.step(mine)[1], step, 2)
    return found


def main(out: str) -> None:
    with distributed.joined():
        rank, world = distributed.rank(), distributed.world_size()
        found = gradients(rank, world)
        if rank == 0:
            torch.save(found, out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
