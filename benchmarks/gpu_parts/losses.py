"""Losses of a run's first steps on the device, beside those of the CPU in fp32."""

from __future__ import annotations

from functools import partial

import torch

from gpu_parts.part import Found, Part, Skipped
from shared.steps import bare_step
from simsiam_zoo.training.batches import to_device, train_loader
from simsiam_zoo.training.setup import prepare

LR = 0.02
"""Small, so that a difference in rounding does not grow into another course within the steps."""

FIRST = 10
ROUNDING, HALF = (1e-3, 1e-2), (5e-3, 2e-2)
MAY_BE = {"fp64": ROUNDING, "fp32": ROUNDING, "TF32": HALF, "bf16": HALF, "fp16": HALF}
"""How far a loss may be from the CPU's in fp32, in the first ten steps and in all.

On a CPU fp64 is away by 3e-5 and 3e-3 (in 50 steps), bf16 by 4e-4 and 4e-3.
"""


def losses(
    part: Part, device: str, precision: str, steps: int, tf32: bool = False, **settings: object
) -> list[float]:
    """Of the first steps of `digits`, or of what the settings make of it."""
    settings |= {"training__device": device, "training__precision": precision, "optim__lr": LR}
    setup = prepare(part.recipe(**settings))
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = tf32
    try:
        found = []
        batches = train_loader(setup, workers=0).batches()
        for step, loaded in zip(range(steps), batches, strict=False):
            setup.schedule.apply(setup.optimizer, step)
            found.append(bare_step(setup, to_device(setup, loaded)))
        return torch.stack(found).tolist()
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def beside(part: Part, reference: list[float], name: str, **settings: object) -> Found:
    """One precision of the device."""
    if part.rehearsal and name in ("TF32", "fp16"):
        raise Skipped("on CUDA alone")
    precision = "fp32" if name == "TF32" else name
    tf32 = name == "TF32"
    found = losses(part, str(part.device), precision, len(reference), tf32, **settings)
    apart = [abs(a - b) for a, b in zip(found, reference, strict=True)]
    first, every = max(apart[:FIRST]), max(apart)
    near = first <= MAY_BE[name][0] and every <= MAY_BE[name][1]
    return {
        f"farthest in {FIRST} steps": first,
        "may be": MAY_BE[name][0],
        f"in {len(reference)} steps": every,
        "may then be": MAY_BE[name][1],
        "as it should be": "yes" if near else "NO",
        "last loss": found[-1],
        "last loss, CPU fp32": reference[-1],
    }


def run(part: Part) -> None:
    """Each precision against the CPU's fp32."""
    reference = losses(part, "cpu", "fp32", part.pick(50, 12))
    for name in MAY_BE:
        part.case(name, partial(beside, part, reference, name))
