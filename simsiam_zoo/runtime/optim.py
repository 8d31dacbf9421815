"""LARS, and the course of the lr."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

REFERENCE_BATCH = 256
"""The global batch at which the base lr is the lr used: it is base x batch / 256, as in the paper,
whatever the optimiser."""


@dataclass(frozen=True)
class Schedule:
    """The lr's course: linear warm-up, then each group's own curve.

    The warm-up takes equal steps, the first of 1 / (warmup + 1) of the peak: an lr of 0 would waste
    it. `final` is where the cosine ends, after the last step, as a share of the peak.
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

    def apply(self, optimizer: Optimizer, step: int) -> None:
        """Set each group's lr for `step`."""
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * self.factor(group["schedule"], step)


class Lars(Optimizer):
    """LARS: the step of each tensor measured by the size of its weights (arXiv:1708.03888, alg. 1).

    With gradient g, weights w, weight decay b, trust coefficient c, momentum m and lr a:

        ratio = c |w| / (|g| + b |w|)
        v ← m v + a ratio (g + b w)
        w ← w - v

    So it is in the paper and in SimCLR's code. With `lr_in_momentum=False` the lr is outside of the
    momentum, as in the code of SimSiam's linear evaluation (apex's LARC), of BYOL, Barlow Twins and
    VICReg, and in timm's Lars:

        v ← m v + ratio (g + b w)
        w ← w - a v

    Both are the same only while the lr stands still, and not over a warm-up and a cosine. The ratio
    is 1 where the weights are all zero, else they would stay so for ever, and in groups with
    `adapt=False`, which take plain SGD steps.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        lr_in_momentum: bool = True,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "lr_in_momentum": lr_in_momentum,
            "adapt": True,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step for every tensor that has a gradient. Waits for no device."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if "momentum_buffer" not in self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            velocity = [self.state[p]["momentum_buffer"] for p in params]
            gradients = [p.grad for p in params if p.grad is not None]
            decay = group["weight_decay"]
            updates = torch._foreach_add(gradients, params, alpha=decay)
            if group["adapt"]:
                sizes = torch.stack(torch._foreach_norm(params))  # [tensors]
                slopes = torch.stack(torch._foreach_norm(gradients)) + decay * sizes
                defined = (sizes > 0) & (slopes > 0)
                ratios = torch.where(defined, group["trust_coefficient"] * sizes / slopes, 1.0)
                torch._foreach_mul_(updates, ratios.unbind())
            torch._foreach_mul_(velocity, group["momentum"])
            inside, outside = (group["lr"], 1.0) if group["lr_in_momentum"] else (1.0, group["lr"])
            torch._foreach_add_(velocity, updates, alpha=inside)
            torch._foreach_sub_(params, velocity, alpha=outside)


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every value is finite. Waits for the device."""
    return all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point())
