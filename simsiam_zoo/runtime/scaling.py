"""A step of the optimiser under loss scaling, and whether it was taken."""

from __future__ import annotations

import torch


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
