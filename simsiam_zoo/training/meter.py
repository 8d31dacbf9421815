"""Figures of the steps, kept on the device and fetched only when a row is due.

`docs/verdicts.md` has a table of what each column means.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from simsiam_zoo.evaluation.geometry import alignment, spread, uniformity
from simsiam_zoo.runtime import distributed
from simsiam_zoo.training.optimizer import learning_rates
from simsiam_zoo.training.run_folder import MetricsRow
from simsiam_zoo.training.setup import Setup

MACHINE = ("images_per_second", "data_wait", "memory_gb")
"""Columns that tell of the machine: they are others each time the run is repeated."""

UNIFORMITY_ROWS = 128
"""Images of a batch whose pairs give the uniformity: those of 4,096 would cost a step's time."""

_T = TypeVar("_T")


class Meter:
    """Makes rows of what it is shown at each step; one that goes on begins with a saved `state`.

    Loss and std x sqrt(d) are means over the steps since the last row; what costs something, the
    gradient's norm, the alignment and the uniformity, is of the row's own step.
    """

    def __init__(self, setup: Setup, row: Mapping[str, Any] | None = None) -> None:
        self._setup = setup
        self._interval = setup.recipe.logging.interval_steps
        self._began = time.monotonic()
        self._sums: Tensor | None = None
        self._summed: tuple[str, ...] = ()
        self._last: dict[str, Tensor] = {}
        self._steps, self._steps_before, self._waited = 0, 0, 0.0
        if row:
            self._sums = row["sums"].to(setup.runtime.device)
            self._summed = tuple(row["names"])
            self._steps = self._steps_before = int(row["steps"])

    def state(self) -> dict[str, Any]:
        """What the coming row has of the steps since the last one, for a checkpoint; ranks meet.

        Without it the row after a resume would be the mean over fewer steps, and another one.
        """
        if self._sums is None:
            return {}
        sums = distributed.mean(self._sums)
        return {"names": list(self._summed), "sums": sums, "steps": self._steps}

    def is_due(self, step: int) -> bool:
        """Whether there is a row after `step` steps: the first, the last and each n-th.

        Before a change too: no row is a mean over two losses.
        """
        return step == 1 or step % self._interval == 0 or step == self._setup.end

    def waited_for(self, batches: Iterator[_T]) -> Iterator[_T]:
        """`batches`, and the time that the loop stands still until it has the next one."""
        while True:
            began = time.monotonic()
            batch = next(batches, None)
            self._waited += time.monotonic() - began
            if batch is None:
                return
            yield batch

    @torch.no_grad()
    def add(
        self, loss: Tensor, views: Sequence[Tensor], gradient_norm: Tensor | None = None
    ) -> None:
        """Take in one step's loss and embeddings [N, d] of each view. Waits for nothing.

        The gradient's norm is given at a step after which a row is due, and at no other.
        """
        figures = {"loss": loss.detach()}
        if views:
            figures["std_sqrt_d"] = spread(views[-1])
        new = torch.stack([each.to(loss.dtype) for each in figures.values()])
        self._sums = new if self._sums is None else self._sums + new
        self._summed, self._steps = tuple(figures), self._steps + 1
        if gradient_norm is not None:
            self._last = {"gradient_norm": gradient_norm, **_pairwise(views)}

    def row(self, step: int) -> MetricsRow:
        """The row of metrics after `step` steps; waits for the device. Starts the next one."""
        assert self._sums is not None
        now = time.monotonic()
        elapsed = now - self._began
        last = [each.reshape(1).to(self._sums) for each in self._last.values()]
        waited = self._sums.new_full((1,), self._waited / elapsed)
        vector = torch.cat([self._sums / self._steps, *last, waited])
        names = (*self._summed, *self._last, "data_wait")
        # the one time that the device is waited for, and that ranks meet
        figures = dict(zip(names, distributed.mean(vector).tolist(), strict=True))
        batch = self._setup.recipe.training.batch_size
        row: MetricsRow = {
            "step": step,
            "epoch": step // self._setup.plan.steps,
            **figures,
            "data_wait": round(figures["data_wait"], 4),
            "images_per_second": round(batch * (self._steps - self._steps_before) / elapsed, 1),
            "memory_gb": round(memory(self._setup.runtime.device) / 1e9, 4),
            **{f"lr_{part}": lr for part, lr in learning_rates(self._setup.optimizer).items()},
        }
        self._began, self._sums, self._last = now, None, {}
        self._steps, self._steps_before, self._waited = 0, 0, 0.0
        return row

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out of the speed what is no training: looking, saving."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._began += time.monotonic() - began


def _pairwise(views: Sequence[Tensor]) -> dict[str, Tensor]:
    """Alignment of views 1 and 2, 3 and 4 and so on, and uniformity of each, [N, d]."""
    found = {
        f"alignment_{first + 1}_{first + 2}": alignment(views[first], views[first + 1])
        for first in range(0, len(views) - 1, 2)
    }
    for number, view in enumerate(views, start=1):
        if len(view) > 1:
            found[f"uniformity_{number}"] = uniformity(view[:UNIFORMITY_ROWS])
    return found


def memory(device: torch.device) -> int:
    """Bytes: the most that tensors ever took on a CUDA device, else what this process holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    except OSError:  # not Linux: the most it ever held, in bytes on macOS, else in KiB
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
