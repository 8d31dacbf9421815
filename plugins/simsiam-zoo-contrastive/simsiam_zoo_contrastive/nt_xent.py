"""NT-Xent, the normalised temperature-scaled cross-entropy of SimCLR (arXiv:2002.05709)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from simsiam_zoo.plugin import Loss, gather


class NTXentLoss(Loss):
    """Each of the batch's 2N vectors has to find its other view among the 2N - 1 others.

        l(i, j) = -log( exp(cos(u_i, u_j) / τ) / Σ_{k ≠ i} exp(cos(u_i, u_k) / τ) )

    where u are the predictions and the targets together and (i, j) are two views of one image; the
    loss is the mean of l over all 2N ordered pairs (arXiv:2002.05709 eq. 1 and algorithm 1).

    It does not change when prediction and target change places. Without predictor and stop-gradient
    one (z1, z2) is therefore all of SimCLR's loss: the model's mean over (z1, z2) and (z2, z1) is
    the same number, computed twice (`gradient none:sides=one` computes it once). With a predictor
    the two differ, and their mean is the symmetrisation of arXiv:2011.10566 section 6.2. Under
    stop-gradient a target is an anchor and a negative all the same; its gradient is what stops.

    Among several processes the batch is the global one: 2N = 2 x ranks x rows. Every rank computes
    the whole loss, in a matrix of (2N)² numbers. It states no `minimum`: the least value depends on
    N and τ.

    Args:
        temperature: τ, greater than 0. The paper's is 0.1 on ImageNet and 0.5 on CIFAR-10.
    """

    whole_batch = True

    def __init__(self, *, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[N, dim], [N, dim] → scalar >= 0."""
        rows = torch.stack([prediction, target], dim=1)  # [N, 2, dim]: one collective for both
        rows = gather(functional.normalize(rows, dim=2))
        u = rows.transpose(0, 1).flatten(0, 1)  # [2N, dim]: predictions, then targets
        itself = torch.eye(len(u), dtype=torch.bool, device=u.device)
        logits = (u @ u.T / self.temperature).masked_fill(itself, -torch.inf)  # [2N, 2N]
        other_view = torch.arange(len(u), device=u.device).roll(len(rows))
        return functional.cross_entropy(logits, other_view)
