"""How far a long command is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, Self

_LINE_SECONDS = 10.0


class Progress:
    """Counts what is done; a context manager. It shows nothing in the first two seconds.

    Args:
        total: how many there are.
        quiet: show nothing at all.
        what: what is counted.
    """

    def __init__(self, total: int, quiet: bool = False, what: str = "images") -> None:
        self._total, self._quiet, self._what = total, quiet, what
        self._began = self._last = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, done: int) -> None:
        """So many are done."""
        now = time.monotonic()
        if self._quiet or now - self._began < 2:
            return
        if sys.stderr.isatty():
            self._show_bar(done)
        elif now - self._last >= _LINE_SECONDS:
            self._last = now
            left = (self._total - done) * (now - self._began) / max(done, 1)
            print(f"{done:,} of {self._total:,} {self._what}, {left:.0f} s left", file=sys.stderr)
            sys.stderr.flush()

    def _show_bar(self, done: int) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.add_task("", total=self._total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done)
