"""Steps of training, and sides that take turns so that what else a machine does hits them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from simsiam_zoo.model.siamese import Batch
from simsiam_zoo.training.setup import Setup

Step = Callable[[], object]
Block = tuple[float, int]
"""Seconds, and the samples that were trained on in them."""


def clock(device: torch.device) -> float:
    """Seconds, after all that the device was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def bare_step(setup: Setup, batch: Batch) -> torch.Tensor:
    """What no trainer can do without. Returns the loss."""
    with setup.runtime.autocast():
        loss: torch.Tensor = setup.siamese(batch)
    setup.optimizer.zero_grad(set_to_none=True)
    setup.scaler.scale(loss).backward()
    setup.scaler.step(setup.optimizer)
    setup.scaler.update()
    return loss.detach()


def timed(device: torch.device, step: Step, steps: int, batch: int) -> Block:
    """A block of steps on `batch` samples each."""
    began = clock(device)
    for _ in range(steps):
        step()
    return clock(device) - began, steps * batch


def steps_in(device: torch.device, step: Step, seconds: float) -> int:
    """How many steps take about that long, after two that warm up."""
    step()
    step()
    return max(1, round(seconds / timed(device, step, 1, 1)[0]))


def take_turns(
    device: torch.device, sides: Sequence[Step], seconds: float, blocks: int, batch: int
) -> list[list[Block]]:
    """Blocks of about `seconds` each, of each side in turn."""
    turns = [(step, steps_in(device, step, seconds)) for step in sides]
    taken: list[list[Block]] = [[] for _ in sides]
    for _ in range(blocks):
        for found, (step, steps) in zip(taken, turns, strict=True):
            found.append(timed(device, step, steps, batch))
    return taken


def speed(blocks: Sequence[Block]) -> float:
    """The median of the blocks' samples/s."""
    return statistics.median(samples / seconds for seconds, samples in blocks)


def ratio(ours: Sequence[Block], theirs: Sequence[Block]) -> float:
    """Our samples/s over theirs: the median of the ratios of neighbouring blocks."""
    pairs = zip(ours, theirs, strict=True)
    return statistics.median((n / s) / (m / t) for (s, n), (t, m) in pairs)
