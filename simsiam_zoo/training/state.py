"""A run's checkpoints: what is in them, when they are written, and how a run goes on from one."""

from __future__ import annotations

import copy
import errno
import time
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.recipe.lock import identity_differences, pip_install, smaller_differences
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.checkpoint import load_last, newest_checkpoint, save_checkpoint
from simsiam_zoo.runtime.optim import all_finite
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.batches import block_steps
from simsiam_zoo.training.changes import begin_stage
from simsiam_zoo.training.meter import Meter
from simsiam_zoo.training.run_folder import DISK_FULL, RunFolder
from simsiam_zoo.training.setup import Setup
from simsiam_zoo.training.weights import INIT_FILE

RETRY_SECONDS = 60.0
"""From a save that failed to the next attempt."""


@dataclass(frozen=True)
class TrainState:
    """Where a run is: steps and seconds of training; what the coming row of metrics has so far."""

    step: int = 0
    elapsed: float = 0.0
    row: dict[str, Any] = field(default_factory=dict)


class Checkpointer:
    """Writes the checkpoints of one run. All ranks call it at the same steps.

    A policy that looks ahead has prepared a whole block with the weights of its start; so what is
    saved within a block is the state at its start, from which the same block is prepared again.
    """

    def __init__(self, setup: Setup, folder: RunFolder, progress: Progress, meter: Meter) -> None:
        self._setup, self._folder, self._progress, self._meter = setup, folder, progress, meter
        self._at_start: tuple[int, dict[str, Any]] | None = None
        self._wanted_at = time.monotonic() + self._interval()
        self.saved: int | None = None
        """The step of the newest checkpoint that was written here."""

    def due(self, step: int) -> bool:
        """Whether it is time to save by the steps done: the same on all ranks."""
        every = self._setup.recipe.training.checkpoint_steps
        return bool(every and step % every == 0)

    def overdue(self) -> bool:
        """Whether it is time to save by this rank's clock."""
        return time.monotonic() > self._wanted_at

    def note(self, step: int, elapsed: float) -> None:
        """Remember the state at the start of a block, if it may be wanted later."""
        if block_steps(self._setup) > 1 and self._begins_block(step):
            self._at_start = step, copy.deepcopy(self._state(step, elapsed))

    def save(self, step: int, elapsed: float, done: bool, again: bool) -> bool:
        """Write a checkpoint; False: the weights are not finite, and such are never saved.

        With `done` no step follows, so it is saved as it is, in the middle of a block too. With
        `again` a save that fails, on a full disk say, is tried again later; else it is an OSError.
        """
        finite = all_finite(list(self._setup.siamese.state_dict().values()))
        if not all(distributed.collect(finite)):
            return False
        whole = done or step == self._setup.end or self._begins_block(step)
        state = self._state(step, elapsed) if whole or not self._at_start else self._at_start[1]
        wait = self._interval()
        trouble = self._written(state)
        if trouble is None:
            self.saved = state["step"]
        elif not again:
            raise trouble
        else:
            self._progress.say(
                f"warning: no checkpoint at step {step}: {trouble.strerror}; the older ones are"
                f" kept, next attempt in {RETRY_SECONDS:.0f} s"
            )
            wait = min(wait, RETRY_SECONDS)
        self._wanted_at = time.monotonic() + wait
        return True

    def _begins_block(self, step: int) -> bool:
        return (step - self._setup.begin) % block_steps(self._setup) == 0

    def _written(self, state: dict[str, Any]) -> OSError | None:
        """Write the file, on the first rank; None, or what the disk said to it."""
        tables = {
            name: distributed.gather_samples(rows) for name, rows in state["per_sample"].items()
        }

        def write() -> tuple[int, str] | None:
            try:
                whole = state | {"per_sample": tables}
                save_checkpoint(self._folder.checkpoints, state["step"], whole)
            except OSError as error:
                if error.errno not in DISK_FULL | {errno.EACCES, errno.ENOENT}:
                    raise
                return error.errno or 0, error.strerror or ""
            return None

        refused = distributed.from_main(write)
        return None if refused is None else OSError(*refused)

    def _state(self, step: int, elapsed: float) -> dict[str, Any]:
        setup = self._setup
        return {
            "identity": setup.identity,
            "step": step,
            "changes": setup.changes,
            "elapsed": elapsed,
            "row": self._meter.state(),
            "siamese": setup.siamese.state_dict(),
            "optimizer": setup.optimizer.state_dict(),
            "scaler": setup.scaler.state_dict(),
            "per_sample": setup.siamese.gradient.per_sample_state(),
        }

    def _interval(self) -> float:
        return 60 * self._setup.recipe.training.checkpoint_minutes


def restore(setup: Setup, folder: RunFolder, progress: Progress) -> TrainState:
    """Load the last whole checkpoint, cut the metrics back to it.

    A run that was ended before its first checkpoint begins anew.
    """
    if newest_checkpoint(folder.checkpoints) is None:
        progress.say(f"{folder.path} has no checkpoint yet: it begins anew")
        folder.resume(0)
        return TrainState()
    # mapped: a rank reads its own rows alone of what is kept for each sample
    state, path, damage = load_last(folder.checkpoints, mapped=True)
    for line in damage:
        progress.say(f"warning: {line}; going on from {path.name}")
    if state.get("identity") != setup.identity:
        raise InputError(
            f"the checkpoint {path} is of another run ({state.get('identity')})",
            "Put the run's own checkpoints back, or train anew with another --out.",
        )
    while setup.changes < state.get("changes", 0):  # to the network that was saved
        begin_stage(setup)
    setup.siamese.load_state_dict(state["siamese"])
    setup.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
    setup.scaler.load_state_dict(state["scaler"])
    fill_rows(setup.siamese.gradient.per_sample_state(), state["per_sample"])
    step = int(state["step"])
    folder.resume(step)
    return TrainState(step, float(state["elapsed"]), state.get("row", {}))


def fill_rows(mine: dict[str, Tensor], tables: dict[str, Tensor]) -> None:
    """Fill this rank's rows of what is kept for each sample from all ranks' (`gather_samples`)."""
    for name, rows in mine.items():
        found = tables.get(name, rows[:0])[distributed.rank() :: distributed.world_size()]
        if found.shape != rows.shape:
            raise DataError(f"the checkpoint's state of each sample lacks {name} of some")
        rows.copy_(found)


def check_same(
    before: dict[str, Any], setup: Setup, progress: Progress, allow_bn_change: bool = False
) -> None:
    """Refuse to go on with a run that would compute something else; warn of smaller changes.

    BN that would see another number of images at once is refused unless that was allowed.
    """
    if "imported" in before:
        raise InputError(
            "an imported run has no step to go on from",
            "Start from its weights: simsiam-zoo train --recipe RUN/recipe.toml --init RUN",
        )
    if before.get("identity") != setup.identity:
        found = identity_differences(before, setup.lock)
        hint = "Train anew with another --out, or bring back what has changed."
        hint += pip_install(found)
        where = next(iter(found), "its lock was changed")
        raise InputError(f"the run to resume is of another identity ({where})", hint)
    if setup.recipe.training.init and not setup.init:
        raise DataError(
            f"the weights that the run started from are gone: its folder has no {INIT_FILE}",
            "Put the file back: the verdict compares the trained network with them.",
        )
    world = distributed.world_size()
    was = before.get("machine", {}).get("bn_batch", setup.bn_batch)
    if was != setup.bn_batch and not allow_bn_change:
        raise InputError(
            f"BN took its statistics over {was} images at a time in this run, and with"
            f" {world} process{'es' * (world > 1)} it would over {setup.bn_batch}",
            "Use as many processes as before, or go on all the same with --allow-bn-change.",
        )
    for line in smaller_differences(before, setup.lock):
        progress.say(f"warning: not where the run began: {line}")
