"""The stack of fc layers that the paper's projector and predictor are both made of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from simsiam_zoo.errors import InputError

_NORMS = ("all", "hidden", "none")


def mlp(widths: Sequence[int], norm: str, output_affine: bool = True) -> list[nn.Module]:
    """fc → BN → ReLU for the hidden layers, fc → BN for the output.

    A fc layer that BN follows has no bias, which BN would subtract again with the mean. Weights
    start as PyTorch's default, U(-√k, √k) with k = 1 / inputs; with a fixed std the paper's model
    may not converge.

    Args:
        widths: of the input, of the hidden layers if any, and of the output.
        norm: which layers have BN: "all", "hidden" (not the output) or "none".
        output_affine: scale and shift in the output's BN.

    Raises:
        InputError: `norm` is none of these.
    """
    if norm not in _NORMS:
        raise InputError(f"norm is one of {', '.join(_NORMS)}, not {norm!r}")
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
