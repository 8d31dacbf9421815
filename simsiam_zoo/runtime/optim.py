"""Optimisers and learning-rate schedules.

As in the paper: SGD with momentum and weight decay on every parameter, norms and biases too; cosine
over the whole run, by step; the predictor's lr constant, for a part may have settings of its own.
The lr used is base x global batch / 256, whatever the optimiser.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from simsiam_zoo.errors import InputError
from simsiam_zoo.runtime.lars import Lars

REFERENCE_BATCH = 256
"""The global batch at which the base lr is the lr used."""


@dataclass(frozen=True)
class Group:
    """What one part's parameters have to themselves.

    Args:
        lr: the peak of its course.
        weight_decay: the L2 penalty's factor; with adamw decoupled from the gradient.
        schedule: `cosine` or `constant`.
        exclude_norm_and_bias: no weight decay, and with LARS no adaptation, for parameters of one
            dimension: the scales of norms, and all biases.
        norm_and_bias_lr_scale: factor on the lr of these.
    """

    lr: float
    weight_decay: float
    schedule: str
    exclude_norm_and_bias: bool = False
    norm_and_bias_lr_scale: float = 1.0


@dataclass(frozen=True)
class Schedule:
    """The lr's course: linear warm-up, then each group's own curve.

    The warm-up takes equal steps. Its first is 1 / (warmup + 1) of the peak: an lr of 0 would waste
    that step. The step after it has the peak.

    Args:
        steps: length of the run in steps.
        warmup: length of the warm-up in steps.
        final: where the cosine ends, after the last step, as a share of the peak.
    """

    steps: int
    warmup: int = 0
    final: float = 0.0

    def factor(self, kind: str, step: int) -> float:
        """What the group's peak lr is multiplied by at `step` (counted from 0)."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if kind == "constant":
            return 1.0
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.final + (1.0 - self.final) * (0.5 * (1.0 + math.cos(math.pi * done)))

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set each group's lr for `step`."""
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * self.factor(group["schedule"], step)


def make_optimizer(
    name: str,
    parts: Mapping[str, nn.Module],
    groups: Mapping[str, Group],
    own_keys: Mapping[str, Any],
    device: torch.device,
) -> torch.optim.Optimizer:
    """The optimiser, with one or two parameter groups for each part that has anything to train.

    Args:
        name: `sgd`, `lars` or `adamw`.
        parts: the network's parts by name. A parameter that two of them share is trained with the
            first one's settings.
        groups: the settings of each part.
        own_keys: what this optimiser takes besides: `momentum`; `momentum` and
            `trust_coefficient` and `lr_in_momentum`; or `betas`.
        device: where the parameters are.

    Raises:
        InputError: there is nothing to train.
    """
    param_groups: list[dict[str, Any]] = []
    seen: set[int] = set()
    for part, module in parts.items():
        params = [p for p in module.parameters() if p.requires_grad and id(p) not in seen]
        seen.update(id(p) for p in params)
        param_groups += _param_groups(part, params, groups[part])
    if not param_groups:
        raise InputError(
            "no part has anything to train: all of their parameters are fixed",
            "Give at least one of the parts trainable parameters.",
        )
    if name == "lars":
        return Lars(param_groups, **own_keys)
    for group in param_groups:
        del group["adapt"]  # it is LARS that adapts
    kind: Any = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[name]
    fused = device.type in {"cpu", "cuda"}
    optimizer: torch.optim.Optimizer = kind(param_groups, lr=0.0, fused=fused, **own_keys)
    if name == "sgd" and own_keys.get("momentum"):
        _begin_momentum(optimizer)
    return optimizer


def _begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give SGD its momentum before the first step: zero, from which that step is the same.

    By itself torch's fused SGD (2.14) takes memory for it in the first step and leaves the writing
    to the kernel, which writes nothing where fp16 gradients overflow. The first scale of the loss
    is there to overflow, so the second step would go on from whatever was in that memory.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _param_groups(part: str, params: list[nn.Parameter], own: Group) -> list[dict[str, Any]]:
    """One group of a part's parameters, or two where norm scales and biases go by themselves."""
    apart = own.exclude_norm_and_bias or own.norm_and_bias_lr_scale != 1
    decayed: dict[str, Any] = {"weight_decay": own.weight_decay, "adapt": True}
    plain: dict[str, Any] = {"weight_decay": 0.0, "adapt": False}
    found = [
        ([p for p in params if not (apart and p.ndim <= 1)], own.lr, decayed),
        (
            [p for p in params if apart and p.ndim <= 1],
            own.lr * own.norm_and_bias_lr_scale,
            plain if own.exclude_norm_and_bias else decayed,
        ),
    ]
    return [
        {"params": some, "part": part, "lr": lr, "peak_lr": lr, "schedule": own.schedule, **rest}
        for some, lr, rest in found
        if some
    ]


def clip_gradients(optimizer: torch.optim.Optimizer, limit: float) -> torch.Tensor:
    """Scale all gradients down to a norm of `limit` together, where it is more. Waits for nothing.

    Args:
        optimizer: its parameters' gradients.
        limit: 0: they are left as they are.

    Returns:
        The norm before, a scalar.
    """
    params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in params if p.grad is not None])
    if limit:
        torch.nn.utils.clip_grads_with_norm_(params, limit, norm)
    return norm


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The lr of each part now; where its norms and biases have another, that of its weights."""
    found: dict[str, float] = {}
    for group in optimizer.param_groups:
        found.setdefault(group["part"], float(group["lr"]))
    return found


def all_finite(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether every value is finite. Waits for the device."""
    return all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point())


def scaled_step(
    scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer, ask: bool = True
) -> bool:
    """Step on scaled gradients and adapt the scale. Returns whether the step was taken.

    Under fp16 a step whose gradients overflowed is left out and the scale is halved. Only then is
    there anything to ask, and the answer is on the device: asking waits for it. A scaler that is
    not enabled (fp32, bf16) always takes the step, and nothing waits.

    Args:
        scaler: what the loss was scaled with before the backward pass.
        optimizer: of the step.
        ask: False where nobody needs to know: nothing waits then, and the answer is True.
    """
    if not (ask and scaler.is_enabled()):
        scaler.step(optimizer)
        scaler.update()
        return True
    before = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    return scaler.get_scale() >= before  # it falls after an overflow, and never else
