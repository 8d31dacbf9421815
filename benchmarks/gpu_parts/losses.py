"""Losses of a run's first steps on the device, beside those of the CPU in fp32."""

from __future__ import annotations

from functools import partial

import torch

from gpu_parts.part import Found, Part, Skipped
from shared.steps import bare_step
from simsiam_zoo.training.batches import to_device, train_loader
from simsiam_zoo.training.setup import prepare

WITHIN = {"fp64": 0.01, "fp32": 0.01, "TF32": 0.05, "bf16": 0.1, "fp16": 0.1}
"""How far a loss may be from the CPU's in fp32 within the first ten steps. After that a difference
in rounding has grown into another course."""


def losses(part: Part, device: str, precision: str, steps: int, tf32: bool = False) -> list[float]:
    """Of the first steps of `digits`."""
    setup = prepare(part.recipe(training__device=device, training__precision=precision))
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


def beside(part: Part, reference: list[float], name: str) -> Found:
    """One precision of the device."""
    if part.rehearsal and name in ("TF32", "fp16"):
        raise Skipped("on CUDA alone")
    precision = "fp32" if name == "TF32" else name
    found = losses(part, str(part.device), precision, len(reference), tf32=name == "TF32")
    apart = [abs(a - b) for a, b in zip(found, reference, strict=True)]
    return {
        "farthest in 1-10": max(apart[:10]),
        "may be": WITHIN[name],
        "as it should be": "yes" if max(apart[:10]) <= WITHIN[name] else "NO",
        f"farthest in 1-{len(reference)}": max(apart),
        "last loss": found[-1],
        "last loss, CPU fp32": reference[-1],
    }


def run(part: Part) -> None:
    """Each precision against the CPU's fp32."""
    reference = losses(part, "cpu", "fp32", part.pick(50, 12))
    for name in WITHIN:
        part.case(name, partial(beside, part, reference, name))
