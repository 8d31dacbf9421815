"""What is shown of a study while it runs: live lines, or plain ones now and then. No torch here."""

from __future__ import annotations

import json
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from simsiam_zoo.errors import StoppedError
from simsiam_zoo.metrics import SPEED, Latest
from simsiam_zoo.runtime.progress import duration
from simsiam_zoo.studies.plan import StudyJob

_TAIL = 1 << 14
"""Bytes of metrics.jsonl that are read for the newest figures."""

_LIVE_SECONDS, _LINE_SECONDS = 1.0, 30.0


@dataclass
class Running:
    """The jobs of a study by where they are.

    Attributes:
        waiting: to be started, in order.
        started: with the launcher's ids.
        ended: with their exit codes; complete ones from the start among them, with 0.
    """

    waiting: deque[StudyJob] = field(default_factory=deque)
    started: dict[str, StudyJob] = field(default_factory=dict)
    ended: list[tuple[StudyJob, int]] = field(default_factory=list)


class StudyProgress:
    """A line for each job that ends; below them, or now and then, one for each that runs.

    Args:
        console: where it is shown; None: nowhere.
    """

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._live: Live | None = None
        if console is not None and console.is_terminal:
            self._live = Live(console=console, auto_refresh=False, transient=True)
        self._told: int | None = None
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        if self._console is not None:
            self._console.print(_plain(text), soft_wrap=True)

    def show(self, state: Running) -> None:
        """Tell what has ended since, and how the others are."""
        total = len(state.ended) + len(state.waiting) + len(state.started)
        if self._told is None:
            self._told = len(state.ended)
            self.say(f"{total} runs, {self._told} of them complete already")
        for job, code in state.ended[self._told :]:
            self.say(f"{job}: {job_outcome(job, code)}")
        self._told = len(state.ended)
        now = time.monotonic()
        if now - self._last >= (_LINE_SECONDS if self._live is None else _LIVE_SECONDS):
            self._last = now
            lines = [f"{job}: {run_status(job)}" for job in state.started.values()]
            if self._live is None:
                for line in lines:
                    self.say(line)
            else:
                done = Text(f"{self._told} of {total} runs done", style="dim")
                self._live.update(Group(*map(_plain, lines), done), refresh=True)


def run_status(job: StudyJob) -> str:
    """How far a job's run is, by the end of its metrics."""
    rows: list[dict[str, Any]] = []
    with suppress(OSError), (job.run / "metrics.jsonl").open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        for line in file.read().splitlines():
            with suppress(ValueError):  # the first and the last line may be cut
                row = json.loads(line)
                if isinstance(row, dict):
                    rows.append(row)
    if not rows:
        return "starting"
    latest, training = Latest(rows), job.recipe.training
    speed, step = latest.values.get(SPEED), latest.values.get("step", 0)
    epoch = min(int(latest.values.get("epoch", 0)) + 1, training.epochs)
    doing = "training"
    if job.arm.steps is not None and step >= job.arm.steps[1]:
        doing = "evaluating"
    elif job.arm.steps is not None and speed:
        left = (job.arm.steps[1] - step) * training.batch_size / speed
        doing = f"{duration(left)} left"
    figures = (f"{name} {text}" for name, text in latest.texts().items())
    return "  ".join([f"epoch {epoch}/{training.epochs}", *figures, doing])


def job_outcome(job: StudyJob, code: int) -> str:
    """How a job ended, in a word or two."""
    if code == StoppedError.exit_code:
        return "stopped"
    with suppress(OSError, ValueError, KeyError):
        return str(json.loads((job.run / "result.json").read_text("utf-8"))["verdict"])
    return f"failed (exit code {code}): see {job.folder / 'log.txt'}"


def _plain(text: str) -> Text:
    """For `rich`, without its markup and control characters: labels are other people's."""
    return Text("".join(char for char in text if char.isprintable()), no_wrap=True)
