"""VICReg: variance, invariance, covariance (arXiv:2105.04906)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from simsiam_zoo.plugin import Loss, gather

_EPS = 1e-4
"""Added to variances under the root: the paper's."""


class VicRegLoss(Loss):
    """The views should agree, each channel should vary, and no two should vary together.

        L = λ s(p, z) + μ (v(p) + v(z)) + ν (c(p) + c(z))

        s  the mean of (p - z)² over images and channels
        v  the mean over channels of max(0, γ - sqrt(Var + ε)), with ε = 1e-4
        c  the sum of the squared covariances of two different channels, divided by dim

    with Var and covariances over the batch, divided by N - 1 (arXiv:2105.04906 eq. 1 to 6). The
    squared distance is the mean over channels too, as in the paper's algorithm 1 and its code:
    λ = 25 is meant for that. (The released code has half of v.) It does not change when prediction
    and target change places.

    Among several processes the batch is the global one; every rank computes the whole loss.

    Args:
        invariance: λ.
        variance: μ.
        covariance: ν.
        gamma: γ, the std below which a channel is pushed apart.
    """

    minimum = 0.0
    whole_batch = True

    def __init__(
        self,
        *,
        invariance: float,
        variance: float,
        covariance: float,
        gamma: float,
    ) -> None:
        super().__init__()
        self.invariance, self.variance, self.covariance = invariance, variance, covariance
        self.gamma = gamma

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[N, dim], [N, dim] → scalar >= 0; N >= 2 over all ranks."""
        p, z = gather(torch.stack([prediction, target], dim=1)).unbind(dim=1)  # [N, dim] each
        s = functional.mse_loss(p, z)
        (v1, c1), (v2, c2) = self._spread(p), self._spread(z)
        return self.invariance * s + self.variance * (v1 + v2) + self.covariance * (c1 + c2)

    def _spread(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """v and c of one side, [N, dim]."""
        centred = x - x.mean(dim=0)
        covariance = centred.T @ centred / (len(x) - 1)  # [dim, dim]
        variances = covariance.diagonal()
        v = functional.relu(self.gamma - (variances + _EPS).sqrt()).mean()
        c = (covariance - variances.diag()).square().sum() / x.shape[1]
        return v, c
