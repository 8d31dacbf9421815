"""LARS: the step of each layer measured by the size of its weights (arXiv:1708.03888, algorithm 1).

With gradient g, weights w, weight decay b, trust coefficient c, momentum m and lr a:

    ratio = c |w| / (|g| + b |w|)
    v ← m v + a ratio (g + b w)
    w ← w - v

So it is in the paper and in SimCLR's code. The code of SimSiam's linear evaluation (apex's LARC),
of BYOL, Barlow Twins and VICReg, and timm's Lars, keep the lr outside of the momentum:

    v ← m v + ratio (g + b w)
    w ← w - a v

Both are the same only while the lr stands still, and not over a warm-up and a cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lars(Optimizer):
    """SGD with momentum and a ratio for each tensor; nothing is clipped.

    The ratio is 1 where the weights are all zero: by the formula they would stay so for ever.

    Args:
        params: tensors or groups; a group with `adapt=False` takes plain SGD steps (ratio 1).
        lr: `a` above; may change from step to step.
        momentum: `m`.
        weight_decay: `b`.
        trust_coefficient: `c`.
        lr_in_momentum: the first form above; False: the second.
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
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step for every tensor that has a gradient. Waits for no device.

        Args:
            closure: computes the loss anew; its value is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step_group(group, params)
        return loss

    def _step_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        velocity = [self.state[p]["momentum_buffer"] for p in params]
        gradients = [p.grad for p in params if p.grad is not None]
        decay = group["weight_decay"]
        updates = torch._foreach_add(gradients, params, alpha=decay)
        if group["adapt"]:
            ratios = _ratios(
                torch.stack(torch._foreach_norm(params)),
                torch.stack(torch._foreach_norm(gradients)),
                group["trust_coefficient"],
                decay,
            )
            torch._foreach_mul_(updates, ratios.unbind())
        torch._foreach_mul_(velocity, group["momentum"])
        inside, outside = (group["lr"], 1.0) if group["lr_in_momentum"] else (1.0, group["lr"])
        torch._foreach_add_(velocity, updates, alpha=inside)
        torch._foreach_sub_(params, velocity, alpha=outside)


def _ratios(weights: Tensor, gradients: Tensor, trust_coefficient: float, decay: float) -> Tensor:
    """What each tensor's lr is multiplied by, from the norms [tensors] of weights and gradients."""
    sizes = gradients + decay * weights
    defined = (weights > 0) & (sizes > 0)
    return torch.where(defined, trust_coefficient * weights / sizes, 1.0)
