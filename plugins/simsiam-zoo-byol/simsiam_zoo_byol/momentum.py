"""BYOL's target network: the online network's past, averaged."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from simsiam_zoo.plugin import Batch, GradientPolicy, InputError, Siamese, StepOutput


class Momentum(GradientPolicy):
    """Targets come from a second network f_ξ, whose weights follow those of f_θ slowly.

    After step k of K (the first is 0)

        ξ ← τ_k ξ + (1 - τ_k) θ        τ_k = 1 - (1 - τ) (cos(π k / K) + 1) / 2

    (arXiv:2006.07733 eq. 1, and section 3.3 for the schedule): τ_0 is `tau`, and towards the end of
    the run the target stands still. f_ξ starts as a copy of backbone and projector and
    never gets gradient.

    Batch norm of the target is as in the paper: it normalises by the statistics of its own batch,
    view by view, as f_θ does, and its running statistics are its own. The moving average is of
    parameters, not of buffers.

    f_ξ is in the policy's `state_dict`, so that a run goes on from a checkpoint. What a run keeps
    at its end is the trained network, not the target.

    Args:
        tau: τ at the start, 0 to 1; 0 with a constant schedule is SimSiam's target, but for the
            separate BN statistics.
        schedule: "cosine", as above, or "constant".
    """

    def __init__(self, *, tau: float, schedule: str) -> None:
        super().__init__()
        if schedule not in ("cosine", "constant"):
            raise InputError(f"schedule is one of cosine, constant, not {schedule!r}")
        self.tau = tau
        self.schedule = schedule
        self.target: nn.Sequential | None = None

    def setup(self, siamese: Siamese) -> None:
        """Copy the encoder."""
        encoder = OrderedDict(backbone=siamese.backbone, projector=siamese.projector)
        self.target = copy.deepcopy(nn.Sequential(encoder)).requires_grad_(False)

    def forward(self, siamese: Siamese, batch: Batch) -> StepOutput:
        """(p1, z'2) and (p2, z'1), all [N, dim], where z' is f_ξ's and a constant."""
        x1, x2 = batch.views  # [N, 3, H, W] each
        z1 = siamese.encode(x1)  # [N, dim]
        p1 = siamese.predict(z1)  # [N, dim]
        z2 = siamese.encode(x2)
        p2 = siamese.predict(z2)
        target = self._target()
        with torch.no_grad():
            target1, target2 = target(x1), target(x2)  # [N, dim] each
        return StepOutput([(p1, target2), (p2, target1)], (z1, z2))

    def after_step(self, siamese: Siamese, output: StepOutput, step: int, steps: int) -> None:
        """ξ ← τ ξ + (1 - τ) θ."""
        online: list[Tensor] = [*siamese.backbone.parameters(), *siamese.projector.parameters()]
        followers: list[Tensor] = [*self._target().parameters()]
        torch._foreach_lerp_(followers, online, 1 - self.tau_at(step, steps))

    def tau_at(self, step: int, steps: int) -> float:
        """τ of the update that follows `step` (counted from 0) of `steps`."""
        if self.schedule == "constant":
            return self.tau
        return 1 - (1 - self.tau) * (math.cos(math.pi * step / steps) + 1) / 2

    def _target(self) -> nn.Sequential:
        if self.target is None:
            raise InputError(
                "gradient momentum has no target network",
                "Call gradient.setup(siamese) once, before the first step; `build` does.",
            )
        return self.target
