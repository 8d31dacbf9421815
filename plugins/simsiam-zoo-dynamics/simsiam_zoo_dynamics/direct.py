"""Linear predictors that are set, not learned: they follow the correlation matrix of z.

The theory (Tian et al. 2021, arXiv:2102.06810) finds that a trained linear predictor aligns itself
with the eigenvectors of F = E[z zᵀ]; these are set there at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from simsiam_zoo.plugin import InputError, Part, Siamese, StepOutput, mean

_NoEigenvalues: type[Exception] = torch.linalg.LinAlgError  # type: ignore[attr-defined]


class _FromCorrelation(Part):
    """p = W z, where W is set from F̂ after steps: F̂ ← ρ F̂ + (1 - ρ) E_B[z zᵀ].

    The mean is over the step's online z of all views and ranks, not centred; the first one is taken
    as it is. Until there is a F̂, W is the identity.

    F̂ is divided by its largest eigenvalue first, as the authors of DirectPred do in their code (not
    in that of DirectCopy): a cosine does not feel the length of p, and ε means the same whatever
    the length of z.

    Between two settings W is trained by the optimiser, as in the papers; where it is set after each
    step there is nothing to train, and W is a buffer like F̂.

    Args:
        dim: width of z and of p.
        rho: ρ, 0 to 1.
        eps: ε, added to every eigenvalue of W.
        every: W is set after each step whose number (from 0) it divides, and trained in between;
            F̂ is averaged at all.
    """

    weight: Tensor
    correlation: Tensor
    updates: Tensor

    def __init__(self, *, dim: int, rho: float, eps: float, every: int) -> None:
        super().__init__()
        self.rho, self.eps, self.every = rho, eps, every
        if every == 1:
            self.register_buffer("weight", torch.eye(dim))
        else:
            self.weight = nn.Parameter(torch.eye(dim))
        self.register_buffer("correlation", torch.zeros(dim, dim))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, z: Tensor) -> Tensor:
        """z [N, dim] → p [N, dim]. Gradient flows into z."""
        return functional.linear(z, self.weight)

    def after_step(self, siamese: Siamese, output: StepOutput, step: int, steps: int) -> None:
        """Average F̂; set W.

        Raises:
            InputError: the gradient policy states no embeddings, so there is no z to go by.
        """
        if not output.embeddings:
            raise InputError(
                f"predictor {type(self).__name__} follows z, and the gradient policy"
                f" {type(siamese.gradient).__name__} states no embeddings in its StepOutput",
                "Use another predictor or gradient policy.",
            )
        z = torch.cat([*output.embeddings]).to(self.correlation.dtype)  # [views x N, dim]
        batch = mean(z.T @ z / len(z))  # [dim, dim]
        kept = self.rho * (self.updates > 0).to(batch.dtype)
        self.correlation.mul_(kept).add_(batch * (1 - kept))
        self.updates += 1
        if step % self.every == 0:
            try:
                self.weight.copy_(self.from_correlation(self.correlation))
            except _NoEigenvalues:  # z is not finite any more: let the loss say so
                self.weight.fill_(torch.nan)

    def from_correlation(self, f: Tensor) -> Tensor:
        """W for F̂, both [dim, dim]."""
        raise NotImplementedError

    def _power(self, f: Tensor, alpha: float) -> Tensor:
        """(F̂ / s_1)^α + ε I, where s_1 is the largest eigenvalue."""
        s, u = torch.linalg.eigh(f)  # ascending
        s = s.clamp(min=0)  # rounding
        p = (s / s[-1].clamp(min=torch.finfo(s.dtype).tiny)) ** alpha + self.eps
        w: Tensor = (u * p) @ u.T
        return w


class DirectPred(_FromCorrelation):
    """W = U diag(p) Uᵀ with p_j = √s_j + ε max_j s_j, where F̂ / s_1 = U diag(s) Uᵀ.

    arXiv:2102.06810, eq. 18 and 19; the largest of these s is 1. Takes an eigendecomposition of
    [dim, dim] each time that W is set: with a wide z, say `every` = 10.
    """

    def from_correlation(self, f: Tensor) -> Tensor:
        """W for F̂, both [dim, dim]."""
        return self._power(f, 0.5)


class DirectSet(_FromCorrelation):
    """W = (F̂ / s_1)^α + ε I (arXiv:2110.04947): α = 1/2 is DirectPred, α = 1 DirectCopy.

    Args:
        dim, rho, eps, every: as for all of them.
        alpha: α, 0 or more; at 0 every direction counts alike.
    """

    def __init__(
        self,
        *,
        dim: int,
        alpha: float,
        rho: float,
        eps: float,
        every: int,
    ) -> None:
        super().__init__(dim=dim, rho=rho, eps=eps, every=every)
        self.alpha = alpha

    def from_correlation(self, f: Tensor) -> Tensor:
        """W for F̂, both [dim, dim]."""
        return self._power(f, self.alpha)


class DirectCopy(_FromCorrelation):
    """W = F̂ / s_1 + ε I (arXiv:2110.04947): no eigenvectors, and s_1 from power iterations."""

    def from_correlation(self, f: Tensor) -> Tensor:
        """W for F̂, both [dim, dim]."""
        identity = torch.eye(len(f), dtype=f.dtype, device=f.device)
        return f / _largest_eigenvalue(f) + self.eps * identity


def _largest_eigenvalue(f: Tensor, iterations: int = 64) -> Tensor:
    """Of a positive semidefinite [dim, dim], from below; at least the smallest positive number."""
    tiny = torch.finfo(f.dtype).tiny
    v = f[f.diagonal().argmax()]  # the image of a unit vector, and not 0 unless F̂ is
    for _ in range(iterations):
        v = f @ (v / v.norm().clamp(min=tiny))
    v = v / v.norm().clamp(min=tiny)
    largest: Tensor = (v @ f @ v).clamp(min=tiny)
    return largest
