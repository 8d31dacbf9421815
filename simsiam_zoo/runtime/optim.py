"""Optimiser and learning-rate schedule, as the paper has them.

SGD with momentum and weight decay on every parameter, BN and biases too. The lr used is
base x global batch / 256; cosine over the whole run, by step; a part may have a schedule of its own
(the paper keeps the predictor's lr constant).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from simsiam_zoo.errors import InputError

REFERENCE_BATCH = 256
"""The global batch at which the base lr is the lr used."""


@dataclass(frozen=True)
class Group:
    """What one part's parameters have to themselves."""

    lr: float
    weight_decay: float
    schedule: str  # cosine or constant


@dataclass(frozen=True)
class Schedule:
    """The lr's course: linear warm-up from 0, then each group's own curve.

    Args:
        steps: length of the run in steps.
        warmup: length of the warm-up in steps.
    """

    steps: int
    warmup: int = 0

    def factor(self, kind: str, step: int) -> float:
        """What the group's peak lr is multiplied by at `step` (counted from 0)."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if kind == "constant":
            return 1.0
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.5 * (1.0 + math.cos(math.pi * done))

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set each group's lr for `step`."""
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * self.factor(group["schedule"], step)


def make_sgd(
    parts: Mapping[str, nn.Module],
    groups: Mapping[str, Group],
    momentum: float,
    device: torch.device,
) -> torch.optim.SGD:
    """SGD with one parameter group for each part that has trainable parameters.

    A parameter that two parts share is trained with the first one's settings.

    Raises:
        InputError: no part has any.
    """
    param_groups = []
    seen: set[int] = set()
    for name, part in parts.items():
        params = [p for p in part.parameters() if p.requires_grad and id(p) not in seen]
        seen.update(id(p) for p in params)
        if params:
            own = groups[name]
            param_groups.append(
                {
                    "params": params,
                    "part": name,
                    "lr": own.lr,
                    "peak_lr": own.lr,
                    "schedule": own.schedule,
                    "weight_decay": own.weight_decay,
                }
            )
    if not param_groups:
        raise InputError(
            "no part has anything to train: all of their parameters are fixed",
            "Give at least one of the parts trainable parameters.",
        )
    fused = device.type in {"cpu", "cuda"}
    return torch.optim.SGD(param_groups, lr=0.0, momentum=momentum, fused=fused)


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The lr of each part now."""
    return {group["part"]: float(group["lr"]) for group in optimizer.param_groups}


def all_finite(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether every value is finite. Waits for the device."""
    return all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point())
