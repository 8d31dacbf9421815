"""Barlow Twins: the two views' channels, correlated over the batch (arXiv:2103.03230)."""

from __future__ import annotations

import torch
from torch import Tensor

from simsiam_zoo.plugin import Loss, gather

_EPS = 1e-5
"""Added to variances, so that a constant channel has a gradient; the released code's (its BN's)."""


class BarlowTwinsLoss(Loss):
    """Each channel should agree with itself in the other view, and with no other channel.

        L = Σ_i (1 - C_ii)² + λ Σ_i Σ_{j ≠ i} C_ij²

    where C_ij is the correlation over the batch of channel i of the prediction with channel j of
    the target (arXiv:2103.03230 eq. 1 and 2). It does not change when the two change places.

    Among several processes the batch is the global one; every rank computes the whole loss.

    Args:
        lambd: λ.
        scale: a factor on the loss, which is a sum over dim² correlations and large. LARS does not
            feel it, SGD does.
    """

    minimum = 0.0
    whole_batch = True

    def __init__(self, *, lambd: float, scale: float) -> None:
        super().__init__()
        self.lambd = lambd
        self.scale = scale

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[N, dim], [N, dim] → scalar >= 0; N >= 2 over all ranks."""
        rows = gather(torch.stack([prediction, target], dim=1))  # [N, 2, dim]
        a, b = (_standardised(x) for x in rows.unbind(dim=1))  # [N, dim] each
        c = a.T @ b / len(a)  # [dim, dim]
        on_diagonal = (1 - c.diagonal()).square().sum()
        off_diagonal = (c - c.diagonal().diag()).square().sum()
        return self.scale * (on_diagonal + self.lambd * off_diagonal)


def _standardised(x: Tensor) -> Tensor:
    """Each channel with mean 0 and variance 1 over the batch, [N, dim]."""
    variance, mean = torch.var_mean(x, dim=0, correction=0)
    return (x - mean) * (variance + _EPS).rsqrt()
