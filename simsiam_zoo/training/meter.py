"""Figures of the steps, summed on the device and fetched only when a row is due."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from simsiam_zoo.evaluation.geometry import spread
from simsiam_zoo.runtime.optim import learning_rates
from simsiam_zoo.training.record import Row
from simsiam_zoo.training.setup import Setup


class Meter:
    """Means of loss and std x sqrt(d) over the steps since the last row, and the speed."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._began = time.monotonic()
        self._loss: Tensor
        self._spread: Tensor
        self._steps: int
        self._clear()

    def add(self, loss: Tensor, z: Tensor | None) -> None:
        """Take in one step: its loss, and the embeddings [N, d] of one view. Waits for nothing."""
        self._loss = self._loss + loss.detach()
        if z is not None:
            self._spread = self._spread + spread(z)
        self._steps += 1

    def row(self, step: int) -> Row:
        """The row of metrics after `step` steps; waits for the device. Starts the next one."""
        loss, spread_ = float(self._loss) / self._steps, float(self._spread) / self._steps
        now = time.monotonic()
        batch = self._setup.recipe.training.batch_size
        row: Row = {
            "step": step,
            "epoch": step // self._setup.plan.steps,
            "loss": loss,
            "std_sqrt_d": spread_,
            "images_per_second": round(batch * self._steps / (now - self._began), 1),
            **{f"lr_{part}": lr for part, lr in learning_rates(self._setup.optimizer).items()},
        }
        self._began = now
        self._clear()
        return row

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out of the speed what is no training: looking, saving."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._began += time.monotonic() - began

    @staticmethod
    def finite(row: Row) -> bool:
        """Whether the row's loss is a number."""
        return math.isfinite(row["loss"])

    def _clear(self) -> None:
        zero = torch.zeros((), device=self._setup.runtime.device)
        self._loss, self._spread, self._steps = zero, zero.clone(), 0
