"""What a person sees of a run while it goes on; the record is written elsewhere.

A live bar on a terminal, plain lines where the output goes to a file or a pipe, nothing if quiet.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Self, TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from simsiam_zoo.runtime.clock import duration
from simsiam_zoo.training.record import Row

_LINE_SECONDS = 10.0  # between plain lines: a log for a long run stays readable
_PATIENCE = 2.0  # seconds after which one wants to know how far it is
_LARGE_WAIT = 0.1  # share of the time for which the loop may wait for data without a word

_T = TypeVar("_T")


class _Latest:
    """The newest value of each figure, and the speed, in words."""

    def __init__(self) -> None:
        self.values: Row = {}
        self.steps = self.epochs = self.batch_size = 0

    def begin(self, steps: int, epochs: int, batch_size: int) -> None:
        self.steps, self.epochs, self.batch_size = steps, epochs, batch_size

    def update(self, row: Row) -> None:
        self.values.update(row)

    def words(self) -> list[str]:
        v = self.values
        words = []
        if "epoch" in v:
            words.append(f"epoch {int(v['epoch']) + (v['step'] < self.steps)}/{self.epochs}")
        if "loss" in v:
            words.append(f"loss {v['loss']:.3f}")
        if "std_sqrt_d" in v:
            words.append(f"std {v['std_sqrt_d']:.2f}")
        if "effective_rank" in v:
            words.append(f"rank {v['effective_rank']:.0f}")
        words += [f"kNN {value:.3f}" for key, value in v.items() if key.startswith("knn")]
        if "images_per_second" in v:
            words.append(f"{v['images_per_second']:.0f} img/s")
            left = (self.steps - v["step"]) * self.batch_size / max(v["images_per_second"], 1e-9)
            words.append(f"{duration(left)} left")
        # at the first step the loader has only just begun
        if v.get("data_wait", 0) > _LARGE_WAIT and v["step"] > 1:
            words.append(f"data wait {100 * v['data_wait']:.0f}%")
        return words


class Screen:
    """Where a run says how it gets on. This one says nothing; a context manager."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def say(self, text: str) -> None:
        """One line that stays."""

    def begin(self, step: int, steps: int, epochs: int, batch_size: int) -> None:
        """The steps start, or go on, at `step` of `steps`."""

    def show(self, row: Row) -> None:
        """New figures: a row of metrics."""

    def end(self) -> None:
        """The steps are done."""

    def follow(self, items: Iterable[_T], total: int, what: str) -> Iterator[_T]:
        """`items`, of which there are `total`; how far they are is shown if it takes seconds."""
        began = time.monotonic()
        for done, item in enumerate(items):
            if time.monotonic() - began > _PATIENCE:
                self.count(done, total, what)
            yield item
        self.end()

    def count(self, done: int, total: int, what: str) -> None:
        """So many of `total` batches are done, of something that is no training."""


class PlainScreen(Screen):
    """A line now and then, each whole and without control characters."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._latest = _Latest()
        self._last = 0.0

    def say(self, text: str) -> None:
        """Print the line."""
        print(text, file=self._stream, flush=True)

    def begin(self, step: int, steps: int, epochs: int, batch_size: int) -> None:
        """Remember the length of the run."""
        self._latest.begin(steps, epochs, batch_size)
        self._last = time.monotonic()

    def show(self, row: Row) -> None:
        """Print the newest figures, if the last line is some seconds old."""
        self._latest.update(row)
        now = time.monotonic()
        if now - self._last >= _LINE_SECONDS:
            self._last = now
            self.say("  ".join(self._latest.words()))

    def count(self, done: int, total: int, what: str) -> None:
        """Print how far it is, if the last line is some seconds old."""
        now = time.monotonic()
        if now - self._last >= _LINE_SECONDS:
            self._last = now
            self.say(f"{what}: {100 * done // total}%")


class RichScreen(Screen):
    """A live progress bar with the newest figures below it."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._latest = _Latest()
        self._progress: Progress | None = None

    def say(self, text: str) -> None:
        """Print the line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def begin(self, step: int, steps: int, epochs: int, batch_size: int) -> None:
        """Show the bar."""
        self._latest.begin(steps, epochs, batch_size)
        self._start(step, steps, "starting")

    def show(self, row: Row) -> None:
        """Move the bar and renew the figures."""
        self._latest.update(row)
        if self._progress is not None:
            task = self._progress.task_ids[0]
            text = " ".join(self._latest.words())
            self._progress.update(task, completed=row["step"], description=text)

    def count(self, done: int, total: int, what: str) -> None:
        """Show a bar of its own, or move it."""
        if self._progress is None:
            self._start(done, total, what)
        elif self._progress.task_ids:
            self._progress.update(self._progress.task_ids[0], completed=done)

    def _start(self, done: int, total: int, text: str) -> None:
        self._progress = Progress(
            BarColumn(bar_width=12),
            TaskProgressColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
        )
        self._progress.add_task(text, total=total, completed=done)
        self._progress.start()

    def end(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def default_screen(quiet: bool = False) -> Screen:
    """A live screen where stderr is a terminal, plain lines elsewhere."""
    if quiet:
        return Screen()
    return RichScreen() if sys.stderr.isatty() else PlainScreen()
