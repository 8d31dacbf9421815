"""What a person sees of a study under way: a live table, or plain lines. No torch here."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from simsiam_zoo.errors import StoppedError
from simsiam_zoo.runtime.progress import duration
from simsiam_zoo.studies.plan import StudyJob

_TAIL = 1 << 14
"""Bytes of metrics.jsonl that are read for the newest figures."""

_REFRESH = 1.0
_LINE_SECONDS = 30.0


class StudyState(Protocol):
    """What is shown: `running.Running`."""

    @property
    def waiting(self) -> Sequence[StudyJob]:
        """Not begun."""

    @property
    def started(self) -> dict[str, StudyJob]:
        """At work."""

    @property
    def elsewhere(self) -> Sequence[StudyJob]:
        """At work, started by others."""

    @property
    def ended(self) -> Sequence[tuple[StudyJob, int]]:
        """Done, and how."""


class StudyProgress:
    """Is told how the jobs of a study are. This class shows nothing; a context manager."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def say(self, text: str) -> None:
        """One line that stays."""

    def show(self, state: StudyState) -> None:
        """The newest state."""


class StudyLines(StudyProgress):
    """A line for each job that ends, and one now and then on those that run."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._said: set[Path] = set()
        self._first = True
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        """Print the line."""
        print(text, file=self._stream, flush=True)

    def show(self, state: StudyState) -> None:
        """Print what has ended since, and what runs if the last line is some time old."""
        if self._first:
            self._first = False
            self._said = {job.folder for job, _ in state.ended}
            total = len(state.ended) + len(state.waiting) + len(state.started)
            self.say(f"{total} runs, {len(state.ended)} of them complete already")
        for job, code in state.ended:
            if job.folder not in self._said:
                self._said.add(job.folder)
                self.say(f"{job_name(job)}: {job_outcome(job, code)}")
        now = time.monotonic()
        if now - self._last >= _LINE_SECONDS:
            self._last = now
            for job in (*state.started.values(), *state.elsewhere):
                self.say(f"{job_name(job)}: {'  '.join(newest(job).words())}")


class StudyTable(StudyProgress):
    """A live table: a row for each job."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._last = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Print the line above the table."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def show(self, state: StudyState) -> None:
        """Draw the table anew, now and then."""
        now = time.monotonic()
        if now - self._last >= _REFRESH:
            self._last = now
            self._live.update(jobs_table(state, self._console.height), refresh=True)


def jobs_table(state: StudyState, height: int) -> Group:
    """The table, no higher than the terminal: what runs, what ended last, what comes next."""
    columns = ("arm", "seed", "epoch", "loss", "std", "kNN", "verdict", "left")
    drawn = Table(*columns, box=None, pad_edge=False, header_style="bold")
    running = [*state.started.values(), *state.elsewhere]
    room = max(1, height - 5 - len(running))
    ended = list(state.ended)[-room:]
    waiting = list(state.waiting)[: max(0, room - len(ended))]
    for job, code in ended:
        latest = newest(job)
        drawn.add_row(*_cells(job, latest, job_outcome(job, code), ""))
    for job in running:
        latest = newest(job)
        drawn.add_row(*_cells(job, latest, latest.doing, latest.left or ""), style="cyan")
    for job in waiting:
        drawn.add_row(Text(job.label), str(job.seed), style="dim")
    total = len(state.ended) + len(running) + len(state.waiting)
    return Group(drawn, Text(f"{len(state.ended)} of {total} runs done", style="dim"))


def _cells(job: StudyJob, latest: NewestFigures, verdict: str, left: str) -> list[str | Text]:
    figures = latest.figures
    return [
        Text(job.label, overflow="ellipsis", no_wrap=True),
        str(job.seed),
        figures.get("epoch", ""),
        figures.get("loss", ""),
        figures.get("std", ""),
        figures.get("kNN", ""),
        Text(verdict, overflow="ellipsis", no_wrap=True),
        left,
    ]


class NewestFigures:
    """The newest figures of a run, as texts.

    Args:
        rows: of metrics.jsonl, its last ones.
        job: whose they are.
    """

    def __init__(self, rows: list[dict[str, Any]], job: StudyJob) -> None:
        values: dict[str, Any] = {}
        for row in rows:
            values |= row
        self.figures: dict[str, str] = {}
        self.left: str | None = None
        if "epoch" in values:
            epoch, epochs = int(values["epoch"]), job.recipe.training.epochs
            self.figures["epoch"] = f"{min(epoch + 1, epochs)}/{epochs}"
        for key, name_, form in (("loss", "loss", ".3f"), ("std_sqrt_d", "std", ".2f")):
            if key in values:
                self.figures[name_] = format(values[key], form)
        knn = next((value for key, value in values.items() if key.startswith("top1 ")), None)
        if knn is not None:
            self.figures["kNN"] = f"{100 * knn:.1f}"
        speed, step = values.get("images_per_second"), values.get("step", 0)
        self.doing = "training" if values else "starting"
        if job.steps is not None and step >= job.steps:
            self.doing = "evaluating"
        elif speed and job.steps is not None:
            self.left = duration((job.steps - step) * job.recipe.training.batch_size / speed)

    def words(self) -> list[str]:
        """For a plain line."""
        words = [f"{key} {value}" for key, value in self.figures.items()]
        return [*words, f"{self.left} left" if self.left else self.doing]


def newest(job: StudyJob) -> NewestFigures:
    """What the end of the job's metrics says."""
    rows: list[dict[str, Any]] = []
    with suppress(OSError), (job.run / "metrics.jsonl").open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        for line in file.read().splitlines():
            with suppress(ValueError):  # the first and the last line may be cut
                row = json.loads(line)
                if isinstance(row, dict):
                    rows.append(row)
    return NewestFigures(rows, job)


def job_outcome(job: StudyJob, code: int) -> str:
    """How a job ended, in a word or two."""
    if code == StoppedError.exit_code:
        return "stopped"
    with suppress(OSError, ValueError, KeyError):
        return str(json.loads((job.run / "result.json").read_text("utf-8"))["verdict"])
    return f"failed (exit code {code}): see {job.folder / 'log.txt'}"


def job_name(job: StudyJob) -> str:
    """Of a job, on a line."""
    return f"{job.label}, seed {job.seed}"


def open_study_progress(quiet: bool) -> StudyProgress:
    """A live table where stderr is a terminal, plain lines elsewhere."""
    if quiet:
        return StudyProgress()
    return StudyTable() if sys.stderr.isatty() else StudyLines()
