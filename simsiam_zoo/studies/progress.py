"""What is shown of a study while it runs: a live table, or plain lines. No torch here."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from simsiam_zoo.errors import StoppedError
from simsiam_zoo.metrics import SPEED, Latest
from simsiam_zoo.runtime.progress import LiveProgress, PlainProgress, Progress, duration
from simsiam_zoo.studies.plan import StudyJob

_TAIL = 1 << 14
"""Bytes of metrics.jsonl that are read for the newest figures."""

_REFRESH = 1.0
_LINE_SECONDS = 30.0


@dataclass
class Running:
    """The jobs of a study by where they are.

    Attributes:
        waiting: to be started, in order.
        started: with the launcher's ids.
        elsewhere: held by processes that somebody else started: an earlier study, killed.
        ended: with their exit codes; complete ones from the start among them, with 0.
    """

    waiting: deque[StudyJob] = field(default_factory=deque)
    started: dict[str, StudyJob] = field(default_factory=dict)
    elsewhere: list[StudyJob] = field(default_factory=list)
    ended: list[tuple[StudyJob, int]] = field(default_factory=list)

    @property
    def busy(self) -> int:
        """How many are at work."""
        return len(self.started) + len(self.elsewhere)


class StudyProgress(Progress):
    """Is told how the jobs of a study are. This class shows nothing; a context manager."""

    def show(self, state: Running) -> None:
        """The newest state."""


class StudyLines(PlainProgress, StudyProgress):
    """A line for each job that ends, and one now and then on those that run."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._said: set[Path] | None = None
        self._last = time.monotonic()

    def show(self, state: Running) -> None:
        """Print what has ended since, and what runs if the last line is some time old."""
        if self._said is None:
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
                self.say(f"{job_name(job)}: {'  '.join(read_run_status(job).words())}")


class StudyTable(LiveProgress, StudyProgress):
    """A live table: a row for each job."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._last = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, state: Running) -> None:
        """Draw the table anew, now and then."""
        now = time.monotonic()
        if now - self._last >= _REFRESH:
            self._last = now
            self._live.update(jobs_table(state, self.console.height), refresh=True)


def jobs_table(state: Running, height: int) -> Group:
    """The table, no higher than the terminal: what runs, what ended last, what comes next."""
    columns = ("arm", "seed", "epoch", "loss", "std", "top-1", "verdict", "left")
    drawn = Table(*columns, box=None, pad_edge=False, header_style="bold")
    running = [*state.started.values(), *state.elsewhere]
    room = max(1, height - 5 - len(running))
    ended = list(state.ended)[-room:]
    waiting = list(state.waiting)[: max(0, room - len(ended))]
    for job, code in ended:
        status = read_run_status(job)
        drawn.add_row(*_cells(job, status, job_outcome(job, code), ""))
    for job in running:
        status = read_run_status(job)
        drawn.add_row(*_cells(job, status, status.doing, status.left or ""), style="cyan")
    for job in waiting:
        drawn.add_row(Text(job.label), str(job.seed), style="dim")
    total = len(state.ended) + len(running) + len(state.waiting)
    return Group(drawn, Text(f"{len(state.ended)} of {total} runs done", style="dim"))


def _cells(job: StudyJob, status: RunStatus, verdict: str, left: str) -> list[str | Text]:
    texts = status.latest.texts()
    return [
        Text(job.label, overflow="ellipsis", no_wrap=True),
        str(job.seed),
        status.epoch,
        texts.get("loss", ""),
        texts.get("std", ""),
        status.latest.top1(),
        Text(verdict, overflow="ellipsis", no_wrap=True),
        left,
    ]


@dataclass(frozen=True)
class RunStatus:
    """The state of a run of a study.

    Args:
        latest: its newest metrics.
        epoch: `3/10`; empty before the first row.
        doing: `starting`, `training` or `evaluating`.
        left: time until the training's end, where its speed is known.
    """

    latest: Latest
    epoch: str
    doing: str
    left: str | None

    def words(self) -> list[str]:
        """For a plain line."""
        words = [f"epoch {self.epoch}"] if self.epoch else []
        words += [f"{name} {text}" for name, text in self.latest.texts().items()]
        return [*words, f"{self.left} left" if self.left else self.doing]


def read_run_status(job: StudyJob) -> RunStatus:
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
    latest = Latest(rows)
    values, training = latest.values, job.recipe.training
    speed, step = values.get(SPEED.key), values.get("step", 0)
    epoch = min(int(values.get("epoch", 0)) + 1, training.epochs)
    at = f"{epoch}/{training.epochs}" if values else ""
    if job.steps is not None and step >= job.steps:
        return RunStatus(latest, at, "evaluating", None)
    left = None
    if speed and job.steps is not None:
        left = duration((job.steps - step) * training.batch_size / speed)
    return RunStatus(latest, at, "training" if values else "starting", left)


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
