"""Less memory for more time: a backbone that computes its activations anew in the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from simsiam_zoo.errors import InputError
from simsiam_zoo.model.siamese import Siamese
from simsiam_zoo.recipe import Recipe


def recompute_activations(recipe: Recipe, siamese: Siamese) -> None:
    """Have the backbone compute its activations anew in the backward pass; InputError: it cannot.

    The values are those that there would be without: random generators are set back for it by
    torch, and BN layers leave their running statistics alone, which the first pass has updated.
    """
    backbone: Any = siamese.backbone
    try:
        backbone.set_grad_checkpointing(True)  # timm's name for it
    except (AttributeError, AssertionError, NotImplementedError):  # so timm's say that they cannot
        raise InputError(
            f"backbone {recipe.backbone.name} cannot recompute its activations"
            " (training.activation_checkpointing)",
            "Leave the key out, or take a backbone that can, as timm's ResNets and ViTs.",
        ) from None
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):
            own = _OwnStatistics()
            module.register_forward_pre_hook(own.put_aside)
            # torch leaves a recomputation as soon as it has what it needs, within a layer too
            module.register_forward_hook(own.put_back, always_call=True)


class _OwnStatistics:
    """Lets a BN layer update copies of its running statistics while a backward pass is on."""

    def __init__(self) -> None:
        self._aside: dict[str, torch.Tensor | None] = {}

    def put_aside(self, module: nn.Module, inputs: object) -> None:
        if torch._C._current_graph_task_id() == -1:  # no backward pass is on
            return
        self._aside = dict(module._buffers)
        module._buffers.update({n: b if b is None else b.clone() for n, b in self._aside.items()})

    def put_back(self, module: nn.Module, inputs: object, output: object) -> None:
        module._buffers.update(self._aside)
        self._aside = {}
