"""BYOL's projector and predictor: one architecture, twice."""

from __future__ import annotations

from torch import nn


class _Mlp(nn.Sequential):
    """fc → BN → ReLU → fc. BN makes a bias of the first fc idle; the authors' second has none."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__(
            nn.Linear(in_dim, hidden_dim, bias=False),
            nn.BatchNorm1d(hidden_dim),
            nn.ReLU(inplace=True),
            nn.Linear(hidden_dim, out_dim, bias=False),
        )


class ByolProjector(_Mlp):
    """g: [N, in_dim] → z [N, out_dim] (arXiv:2006.07733 section 3.3). No BN on the output.

    Args:
        in_dim: width of the features.
        hidden_dim: width of the hidden layer.
        out_dim: width of z.
    """

    def __init__(self, *, in_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, hidden_dim, out_dim)
        self.out_dim = out_dim


class ByolPredictor(_Mlp):
    """q: z [N, dim] → p [N, dim], wider in the middle than at its ends.

    Args:
        dim: width of z and of p.
        hidden_dim: width of the hidden layer.
    """

    def __init__(self, *, dim: int, hidden_dim: int) -> None:
        super().__init__(dim, hidden_dim, dim)
