"""What a command and its user tell each other while it works: how far it is, and that it may stop.

Progress is a live bar on a terminal, plain lines in a pipe or file, or nothing: one protocol for
training, evaluation, packing and studies. Of the signals that stop it the first asks, the second
insists. No torch here.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self, TextIO, TypeVar

from simsiam_zoo.runtime.machine import announced_rank

_FIRST_SECONDS = 2.0  # before the first plain line of what was begun
_LINE_SECONDS = 10.0  # between plain lines: a log for a long run stays readable

_T = TypeVar("_T")


class Progress:
    """Is told how far something is. This class shows nothing; a context manager."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def say(self, text: str) -> None:
        """One line that stays."""

    @contextmanager
    def stage(self, what: str) -> Iterator[None]:
        """Inside, something is done that takes seconds and cannot be counted: `what`."""
        self.begin(what, None)
        try:
            yield
        finally:
            self.end()

    def begin(self, what: str, total: int | None, done: int = 0, epochs: int | None = None) -> None:
        """Something starts, or goes on. It may be part of what was begun before.

        `what` is `training`, or what is counted: `images`. Of `total` steps or items (None: they
        cannot be counted) `done` were done before; `epochs` divide the steps.
        """

    def advance(self, done: int, text: str = "") -> None:
        """So many are done; `text` has the newest figures, where there are some."""

    def end(self) -> None:
        """What was begun last is over."""

    def follow(self, items: Iterable[_T], total: int, what: str) -> Iterator[_T]:
        """`items`, of which there are `total`, and how far they are."""
        self.begin(what, total)
        try:
            for done, item in enumerate(items):
                self.advance(done)
                yield item
        finally:
            self.end()


class _Count:
    """What was begun, and the time that is left of it."""

    def __init__(self, what: str, total: int, epochs: int | None) -> None:
        self.what, self.total, self.epochs = what, total, epochs
        self._first: tuple[float, int] | None = None

    def words(self, done: int, text: str) -> list[str]:
        """What stands beside a bar or in a line."""
        now = time.monotonic()
        # The first items take longer than others: something starts or is compiled.
        since, before = self._first = self._first or (now, done)
        words = [text] if text else []
        if self.epochs is not None:
            epoch = min(done * self.epochs // max(self.total, 1) + 1, self.epochs)
            words.insert(0, f"epoch {epoch}/{self.epochs}")
        if done > before:
            left = (self.total - done) * (now - since) / (done - before)
            words.append(f"{duration(left)} left")
        return words


class PlainProgress(Progress):
    """A line now and then, each whole and without control characters."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._counts: list[_Count] = []
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        """Print the line."""
        print(text, file=self._stream, flush=True)

    def begin(self, what: str, total: int | None, done: int = 0, epochs: int | None = None) -> None:
        """Remember what is counted; print what cannot be."""
        self._counts.append(_Count(what, total or 0, epochs))
        self._last = time.monotonic()
        if total is None:
            self.say(what)
        else:
            self._last -= _LINE_SECONDS - _FIRST_SECONDS

    def advance(self, done: int, text: str = "") -> None:
        """Print how far it is, if the last line is some seconds old."""
        count, now = self._counts[-1], time.monotonic()
        words = count.words(done, text)
        if now - self._last >= _LINE_SECONDS:
            self._last = now
            if not text:
                words.insert(0, f"{count.what}: {done:,} of {count.total:,}")
            self.say("  ".join(words))

    def end(self) -> None:
        """Go on with what was begun before."""
        if self._counts:
            self._counts.pop()


class LiveProgress(Progress):
    """Bars with the newest figures beside them, drawn anew in their place by `rich`."""

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as Bars

        self._console = console or Console(stderr=True)
        text = TextColumn("{task.description}", markup=False)
        columns = (BarColumn(bar_width=12), TaskProgressColumn(), text)
        self._bars = Bars(*columns, console=self._console, transient=True)
        self._counts: list[tuple[Any, _Count]] = []

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Print the line above the bars."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def begin(self, what: str, total: int | None, done: int = 0, epochs: int | None = None) -> None:
        """Show a bar below those of what it is part of; a moving one where nothing is counted."""
        bar = self._bars.add_task(what, total=total, completed=done)
        self._counts.append((bar, _Count(what, total or 0, epochs)))
        self._bars.start()

    def advance(self, done: int, text: str = "") -> None:
        """Move the bar and renew the figures."""
        bar, count = self._counts[-1]
        described = "  ".join([*([] if text else [count.what]), *count.words(done, text)])
        self._bars.update(bar, completed=done, description=described)

    def end(self) -> None:
        """Take the bar away."""
        if self._counts:
            self._bars.remove_task(self._counts.pop()[0])
        if not self._counts:
            self._bars.stop()


_silent = False


def keep_silent(quiet: bool) -> None:
    """Whether this process is to show no progress, whoever opens it: what `--quiet` says."""
    global _silent
    _silent = quiet


def tell(text: str) -> None:
    """One line on stderr of what is done before a run begins, unless it is to be silent."""
    if not _silent and announced_rank() == 0:
        open_progress().say(text)


def open_progress(quiet: bool = False) -> Progress:
    """A live bar on a terminal that can redraw a line, plain lines elsewhere, nothing if quiet."""
    if quiet or _silent:
        return Progress()
    redraws = sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    return LiveProgress() if redraws else PlainProgress()


def duration(seconds: float) -> str:
    """`43 s`, `12 min`, `3 h 20 min`; nothing less than `0 s`."""
    if seconds < 90:
        return f"{max(0.0, seconds):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]

_ECHO_SECONDS = 5.0
"""Under torchrun a Ctrl-C comes twice, from the terminal and from torchrun: one request."""


class StopRequest:
    """Listens for SIGINT, SIGTERM and SIGUSR1 while it is entered, in the main thread alone.

    The first signal sets `requested`, for the loop to save and leave; a second one ends the
    process at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self._asked = 0.0
        self._before: dict[int, Any] = {}
        self._interrupts = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Inside, the first signal too raises KeyboardInterrupt, as one that came before does."""
        self._interrupts = True
        try:
            if self.requested:
                raise KeyboardInterrupt
            yield
        finally:
            self._interrupts = False

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._asked = time.monotonic()
        for one in self._before:
            signal.signal(one, self._insist)
        if self._interrupts:
            raise KeyboardInterrupt

    def _insist(self, number: int, frame: FrameType | None) -> None:
        echo = "TORCHELASTIC_RUN_ID" in os.environ and number != signal.SIGUSR1
        if echo and time.monotonic() - self._asked < _ECHO_SECONDS:
            return
        raise KeyboardInterrupt
