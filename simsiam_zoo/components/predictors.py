"""Predictors: z to p, both [N, dim]."""

from __future__ import annotations

from torch import Tensor, nn

from simsiam_zoo.components.mlp import mlp


class MlpPredictor(nn.Sequential):
    """The prediction MLP of arXiv:2011.10566 section 3: a bottleneck, fc-BN-ReLU, then a plain fc.

    Args:
        dim: width of z and of p.
        hidden_dim: width of the bottleneck; None: dim / 4, as in the paper.
        norm: which layers have BN: "hidden" (the paper's), "all" (unstable in its table 3 d) or
            "none".
    """

    def __init__(self, *, dim: int, hidden_dim: int | None = None, norm: str = "hidden") -> None:
        hidden_dim = max(1, dim // 4) if hidden_dim is None else hidden_dim
        super().__init__(*mlp([dim, hidden_dim, dim], norm))


class FixedRandomPredictor(MlpPredictor):
    """The MLP at its random initialisation, never trained (arXiv:2011.10566 table 1 b).

    Its BN still normalises by the batch's statistics in training; only parameters are fixed.
    """

    def __init__(self, *, dim: int, hidden_dim: int | None = None, norm: str = "hidden") -> None:
        super().__init__(dim=dim, hidden_dim=hidden_dim, norm=norm)
        self.requires_grad_(False)  # no gradient: an optimiser leaves it alone, weight decay too


class LinearPredictor(nn.Linear):
    """One fc layer.

    Args:
        dim: width of z and of p.
        bias: a bias beside the weights.
    """

    def __init__(self, *, dim: int, bias: bool = True) -> None:
        super().__init__(dim, dim, bias=bias)


class NoPredictor(nn.Module):
    """No predictor: p is z itself (arXiv:2011.10566 table 1 a)."""

    def forward(self, z: Tensor) -> Tensor:
        """[N, dim] → the same."""
        return z
