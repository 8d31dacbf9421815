"""The optimiser of a run, and what goes with its step.

As in the paper: SGD with momentum and weight decay on every parameter, norms and biases too; cosine
over the whole run, by step; the predictor's lr constant, for a part may have settings of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe.sections import Optim
from simsiam_zoo.runtime.optim import REFERENCE_BATCH, Lars


def make_optimizer(
    optim: Optim, parts: Mapping[str, nn.Module], batch_size: int, device: torch.device
) -> Optimizer:
    """The optimiser, with one or two parameter groups for each part that has anything to train.

    A parameter that two parts share is trained with the first one's settings. The base lr is scaled
    by the global `batch_size`.
    """
    peak = optim.lr * batch_size / REFERENCE_BATCH
    groups: list[dict[str, Any]] = []
    seen: set[int] = set()
    for part, module in parts.items():
        params = [p for p in module.parameters() if p.requires_grad and id(p) not in seen]
        seen.update(id(p) for p in params)
        groups += _param_groups(optim, part, params, peak)
    if not groups:
        raise InputError(
            "no part has anything to train: all of their parameters are fixed",
            "Give at least one of the parts trainable parameters.",
        )
    if optim.name == "lars":
        return Lars(groups, **optim.own_keys())
    for group in groups:
        del group["adapt"]  # it is LARS that adapts
    kind: Any = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[optim.name]
    fused = device.type in {"cpu", "cuda"}
    optimizer: Optimizer = kind(groups, lr=0.0, fused=fused, **optim.own_keys())
    if optim.momentum:
        # By itself torch's fused SGD (2.14) takes memory for its momentum in the first step and
        # leaves the writing to the kernel, which writes nothing where fp16 gradients overflow, as
        # those of the first step should. From zero the first step is the same.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _param_groups(
    optim: Optim, part: str, params: list[nn.Parameter], peak: float
) -> list[dict[str, Any]]:
    """One group of a part's parameters, or two where norm scales and biases go by themselves."""
    own = optim.part(part)
    lr = peak * own.lr_scale
    decayed: dict[str, Any] = {"lr": lr, "weight_decay": own.weight_decay, "adapt": True}
    plain = decayed | {"lr": lr * own.norm_and_bias_lr_scale}
    if own.exclude_norm_and_bias:
        plain |= {"weight_decay": 0.0, "adapt": False}
    found: list[tuple[list[nn.Parameter], dict[str, Any]]] = [(params, decayed)]
    if plain != decayed:
        found = [
            ([p for p in params if p.ndim > 1], decayed),
            ([p for p in params if p.ndim <= 1], plain),
        ]
    return [
        {"params": some, "part": part, "peak_lr": group["lr"], "schedule": own.schedule, **group}
        for some, group in found
        if some
    ]


def clip_gradients(optimizer: Optimizer, limit: float) -> Tensor:
    """Scale all gradients down to a norm of `limit` together; 0: leave them. The norm before."""
    params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in params if p.grad is not None])
    if limit:
        torch.nn.utils.clip_grads_with_norm_(params, limit, norm)
    return norm


def learning_rates(optimizer: Optimizer) -> dict[str, float]:
    """The lr of each part now; where its norms and biases have another, that of its weights."""
    found: dict[str, float] = {}
    for group in optimizer.param_groups:
        found.setdefault(group["part"], float(group["lr"]))
    return found


def scaled_step(scaler: torch.amp.GradScaler, optimizer: Optimizer, ask: bool = True) -> bool:
    """Step on scaled gradients and adapt the scale. Returns whether the step was taken.

    Under fp16 a step whose gradients overflowed is left out and the scale is halved. To ask whether
    it was waits for the device; with `ask` False nothing waits, and the answer is True.
    """
    before = scaler.get_scale() if ask and scaler.is_enabled() else 0.0
    scaler.step(optimizer)
    scaler.update()
    return not before or scaler.get_scale() >= before  # it falls after an overflow, and never else
