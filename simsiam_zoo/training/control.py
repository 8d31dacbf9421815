"""What may stop a run before its end: signals and damaged images, of any rank."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from simsiam_zoo.data.batches import Damage
from simsiam_zoo.errors import DataError, StoppedError
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.runtime.signals import StopRequest
from simsiam_zoo.training.run_folder import RunFolder
from simsiam_zoo.training.setup import Setup

LEAST_DAMAGED = 16
"""Damaged images that end no run, however small its data, unless `data.max_damaged` is 0."""


class Wishes(NamedTuple):
    """What the ranks agree on after a step; the same on all of them."""

    stop: bool  # a stop was requested
    save: bool  # a checkpoint is overdue
    damaged: bool  # more images are damaged than the recipe puts up with


class Control(StopRequest):
    """Says after each step whether a run goes on. A context manager around its steps and its end.

    Args:
        setup, folder: the run.
        progress: told of the first damaged image.
    """

    def __init__(self, setup: Setup, folder: RunFolder, progress: Progress) -> None:
        super().__init__()
        self._setup, self._folder, self._progress = setup, folder, progress
        self._go_on = f"Go on with: simsiam-zoo train --resume {folder.path}"

    def after_step(self, step: int, damaged: tuple[Damage, ...], overdue: bool) -> Wishes:
        """Tell the other ranks what this one wishes; what any of them does. Waits for no device.

        Args:
            step: the number of the step, from 0.
            damaged: images of its batch.
            overdue: a checkpoint is, by the first rank's clock; the others' do not count.
        """
        new = [each for each in damaged if each.id not in self._folder.damaged]
        save = overdue and distributed.rank() == 0
        stop, save_now, more = distributed.agree(self.requested, save, len(new))
        return Wishes(bool(stop), bool(save_now), bool(more) and self._list_damaged(step, new))

    def _list_damaged(self, step: int, new: list[Damage]) -> bool:
        """List what any rank found; whether it is more than the recipe puts up with."""
        for damage in itertools.chain(*distributed.collect(new)):
            if not self._folder.damaged:
                self._progress.say(
                    f"warning: {damage.name}: {damage.reason}; replaced by the next good image of"
                    " its batch, as any other will be (listed in"
                    f" {self._folder.path / 'damaged.jsonl'})"
                )
            self._folder.list_damaged(step, damage)
        share, found = self._setup.recipe.data.max_damaged, len(self._folder.damaged)
        return found > (max(LEAST_DAMAGED, share * self._setup.plan.samples) if share else 0)

    def too_damaged(self) -> DataError:
        """The error of a run that met too many damaged images."""
        folder, listed = self._folder.path, list(self._folder.damaged.values())
        first = "".join(f"\n    {row['sample']}: {row['damage']}" for row in listed[:3])
        return DataError(
            f"{len(listed)} of {self._setup.plan.samples} training images are damaged so far, more"
            f" than data.max_damaged = {self._setup.recipe.data.max_damaged} puts up with. The"
            f" first:{first}",
            f"Restore the shards ({folder / 'damaged.jsonl'} lists all), or raise"
            f" data.max_damaged; --resume {folder} goes on.",
        )

    def stopped(self, step: int, saved: int | None) -> StoppedError:
        """The error of a run that stopped on request; `saved`: the step of a checkpoint of here."""
        where = "which is saved" if saved is None else f"saved at step {saved}"
        return StoppedError(f"stopped at step {step} of {self._setup.steps}; {where}", self._go_on)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """While the trained run is measured, by all ranks: a request ends it, as StoppedError."""
        try:
            with self.interrupting():
                yield
        except KeyboardInterrupt:
            if not self.requested:
                raise
            raise StoppedError(
                "stopped while the run was evaluated; its training is saved", self._go_on
            ) from None
