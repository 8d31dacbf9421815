"""Heads: projectors, [N, in_dim] to z [N, out_dim], and predictors, z to p, both [N, dim]."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from simsiam_zoo.errors import InputError


def mlp(widths: Sequence[int], norm: str, output_affine: bool = True) -> list[nn.Module]:
    """fc → BN → ReLU for the hidden layers, fc → BN for the output.

    A fc layer that BN follows has no bias, which BN would subtract again with the mean. Weights
    start as PyTorch's default, U(-√k, √k) with k = 1 / inputs; with a fixed std the paper's model
    may not converge.

    Args:
        widths: of the input, of the hidden layers if any, and of the output.
        norm: which layers have BN: "all", "hidden" (not the output) or "none".
        output_affine: scale and shift in the output's BN.
    """
    modules: list[nn.Module] = []
    last = len(widths) - 2
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        has_norm = norm == "all" or (norm == "hidden" and layer < last)
        modules.append(nn.Linear(inputs, outputs, bias=not has_norm))
        if has_norm:
            modules.append(nn.BatchNorm1d(outputs, affine=output_affine or layer < last))
        if layer < last:
            modules.append(nn.ReLU(inplace=True))
    return modules


class MlpProjector(nn.Sequential):
    """The projection MLP of arXiv:2011.10566 section 3; BN's places as in its table 3.

    Args:
        in_dim, hidden_dim, out_dim: width of the features, of hidden layers, of z.
        layers: number of fc layers, the output's included.
        norm, output_affine: as for `mlp`; the latter is refused where the output has no BN.
    """

    def __init__(
        self,
        *,
        in_dim: int,
        layers: int,
        hidden_dim: int,
        out_dim: int,
        norm: str,
        output_affine: bool,
    ) -> None:
        if output_affine and norm != "all":
            raise InputError(
                f"output_affine has no effect with norm = {norm}: the output has no BN",
                "Leave it out, or set norm to all.",
            )
        widths = [in_dim, *[hidden_dim] * (layers - 1), out_dim]
        super().__init__(*mlp(widths, norm, output_affine))
        self.out_dim = out_dim


class NoProjector(nn.Identity):
    """No projector: z is the feature itself, out_dim = in_dim."""

    def __init__(self, *, in_dim: int) -> None:
        super().__init__()
        self.out_dim = in_dim


class MlpPredictor(nn.Sequential):
    """The prediction MLP of arXiv:2011.10566 section 3: a bottleneck, fc-BN-ReLU, then a plain fc.

    Args:
        dim: width of z and of p.
        hidden_dim: width of the bottleneck; None: dim / 4, as in the paper.
        norm: as for `mlp`; "hidden" is the paper's, "all" unstable in its table 3 d.
    """

    def __init__(self, *, dim: int, hidden_dim: int | None, norm: str) -> None:
        hidden_dim = max(1, dim // 4) if hidden_dim is None else hidden_dim
        super().__init__(*mlp([dim, hidden_dim, dim], norm))


class FixedRandomPredictor(MlpPredictor):
    """The MLP at its random initialisation, never trained (arXiv:2011.10566 table 1 b).

    Its BN still normalises by the batch's statistics in training; only parameters are fixed.
    """

    def __init__(self, *, dim: int, hidden_dim: int | None, norm: str) -> None:
        super().__init__(dim=dim, hidden_dim=hidden_dim, norm=norm)
        self.requires_grad_(False)  # no gradient: an optimiser leaves it alone, weight decay too


class LinearPredictor(nn.Linear):
    """One fc layer, with a bias or without."""

    def __init__(self, *, dim: int, bias: bool) -> None:
        super().__init__(dim, dim, bias=bias)


class NoPredictor(nn.Identity):
    """No predictor: p is z itself (arXiv:2011.10566 table 1 a)."""
