"""What may stop a run before its end: signals, the other ranks, a lost process, damaged images."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

from simsiam_zoo.data.batches import Damage
from simsiam_zoo.errors import DataError, PeerError, StoppedError
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.runtime.signals import StopRequest
from simsiam_zoo.training.run_folder import RunFolder
from simsiam_zoo.training.setup import Setup

LEAST_DAMAGED = 16
"""Damaged images that end no run, however small its data, unless `data.max_damaged` is 0."""

PATIENCE = 10.0
"""How many times the grace a save may take: it waits for the others, and for the disk."""

_CHECKS_EVERY = 0.5  # seconds


class Wishes(NamedTuple):
    """What the ranks agree on after a step; the same on all of them.

    Attributes:
        stop: a stop was requested.
        save: a checkpoint is overdue.
        damaged: more images are damaged than the recipe puts up with.
    """

    stop: bool
    save: bool
    damaged: bool


class Control:
    """Says after each step whether a run goes on. A context manager around its steps and its end.

    Args:
        setup, folder: the run.
        progress: told of the first damaged image.
    """

    def __init__(self, setup: Setup, folder: RunFolder, progress: Progress) -> None:
        self._setup, self._folder = setup, folder
        self._go_on = f"Go on with: simsiam-zoo train --resume {folder.path}"
        self._agree = distributed.Agreement()
        self._damage = DamageCount(setup, folder, progress)
        self._stop = StopRequest()
        grace = setup.recipe.training.grace_seconds
        self._watchdog = Watchdog(self._stop, grace, self._go_on)
        self.patient, self.paused = self._watchdog.patient, self._watchdog.paused

    def __enter__(self) -> Self:
        self._stop.__enter__()
        self._watchdog.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._watchdog.__exit__(*error)
        self._stop.__exit__(*error)

    def after_step(
        self, step: int, damaged: tuple[Damage, ...], overdue: bool, final: bool
    ) -> Wishes:
        """Tell the other ranks what this one wishes; what they all do. Waits for no device.

        One rank's wish is everyone's; among several it is heard a step later.

        Args:
            step: the number of the step, from 0.
            damaged: images of its batch.
            overdue: a checkpoint is, by the first rank's clock; the others' do not count.
            final: no step follows.
        """
        self._watchdog.beat()
        found = self._damage.note(step, damaged)
        save = overdue and distributed.rank() == 0
        stop, save_now, new = self._agree(self._stop.requested, save, found, final=final)
        return Wishes(bool(stop), bool(save_now), bool(new) and self._damage.exchange())

    def too_damaged(self) -> DataError:
        """The error of a run that met too many damaged images."""
        return self._damage.error()

    def stopped(self, step: int, saved: int | None) -> StoppedError:
        """The error of a run that stopped on request after `step` steps.

        Args:
            step: steps that were done.
            saved: those of the last checkpoint; None: of an earlier process.
        """
        where = "which is saved" if saved is None else f"saved at step {saved}"
        return StoppedError(f"stopped at step {step} of {self._setup.steps}; {where}", self._go_on)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """While the trained run is measured, which all ranks do: a request ends it at once.

        Raises:
            StoppedError: it was stopped.
        """
        try:
            with self.paused(), self._stop.interrupting():
                yield
        except KeyboardInterrupt:
            if not self._stop.requested:
                raise
            raise StoppedError(
                "stopped while the run was evaluated; its training is saved", self._go_on
            ) from None


class DamageCount:
    """Damaged images that any rank found; the ranks exchange them when one has something new."""

    def __init__(self, setup: Setup, folder: RunFolder, progress: Progress) -> None:
        self._setup, self._folder, self._progress = setup, folder, progress
        self._untold: list[tuple[int, Damage]] = []
        self._known = set(folder.damaged)

    def note(self, step: int, damaged: tuple[Damage, ...]) -> int:
        """Take in a batch of this rank's; returns how many are new and not told yet.

        Args:
            step: steps that were done before the batch.
            damaged: of that batch.
        """
        for damage in damaged:
            if damage.id not in self._known:
                self._known.add(damage.id)
                self._untold.append((step, damage))
        return len(self._untold)

    def exchange(self) -> bool:
        """List what any rank found; whether it is more than the recipe puts up with.

        All ranks have to call it at the same step.
        """
        for untold in distributed.collect(self._untold):
            for step, damage in untold:
                self._folder.list_damaged(step, [damage])
                self._warn_once()
        self._untold = []
        share, found = self._setup.recipe.data.max_damaged, len(self._folder.damaged)
        return found > (max(LEAST_DAMAGED, share * self._setup.plan.samples) if share else 0)

    def error(self) -> DataError:
        """That of a run that met too many."""
        folder, listed = self._folder.path, list(self._folder.damaged.values())
        first = "".join(f"\n    {row['sample']}: {row['damage']}" for row in listed[:3])
        return DataError(
            f"{len(listed)} of {self._setup.plan.samples} training images are damaged so far, more"
            f" than data.max_damaged = {self._setup.recipe.data.max_damaged} puts up with. The"
            f" first:{first}",
            f"Restore the shards ({folder / 'damaged.jsonl'} lists all), or raise"
            f" data.max_damaged; --resume {folder} goes on.",
        )

    def _warn_once(self) -> None:
        if len(self._folder.damaged) == 1:
            (row,) = self._folder.damaged.values()
            self._progress.say(
                f"warning: {row['sample']}: {row['damage']}; replaced by the next good image of its"
                " batch, as any other will be (listed in"
                f" {self._folder.path / 'damaged.jsonl'})"
            )


class Watchdog:
    """Ends this process if it is stuck in a collective. A context manager; idle where it is alone.

    It starts to count when a stop was requested, or when another process left word that it failed;
    a step that is done, `patient` or `paused` start the count anew.

    Args:
        stop: the request to look at.
        grace: seconds without a step, after which the process is ended.
        resume: what the message says about going on.
    """

    def __init__(self, stop: StopRequest, grace: float, resume: str) -> None:
        self._stop, self._grace, self._resume = stop, grace, resume
        self._beat = time.monotonic()
        self._paused, self._patience = False, 1.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        if distributed.is_distributed():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def beat(self) -> None:
        """A step is done."""
        self._beat = time.monotonic()

    @contextmanager
    def patient(self) -> Iterator[None]:
        """What takes longer than a step and waits for the others, as saving does."""
        self.beat()
        self._patience = PATIENCE
        try:
            yield
        finally:
            self.beat()
            self._patience = 1.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What may take any time, as measuring does: all ranks enter it and wait for each other."""
        self._paused = True
        try:
            yield
        finally:
            self.beat()
            self._paused = False

    def _watch(self) -> None:
        since: float | None = None
        while not self._over.wait(_CHECKS_EVERY):
            failure = distributed.peer_failure()
            if failure is None and not self._stop.heard():
                continue
            since = since or time.monotonic()
            grace = self._grace * self._patience
            if not self._paused and time.monotonic() - max(since, self._beat) > grace:
                self._end(failure)

    def _end(self, failure: PeerError | None) -> None:
        cause = (
            failure.what if failure else "a stop was requested, and the other processes are gone"
        )
        code = failure.exit_code if failure else StoppedError.exit_code
        print(
            f"Error: rank {distributed.rank()} is stuck: {cause}\n  {self._resume}",
            file=sys.stderr,
            flush=True,
        )
        os._exit(code)  # the main thread is in a collective, where no exception reaches it
