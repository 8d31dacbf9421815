"""A study under way: a queue of jobs, a launcher, and what is shown of them. No torch here."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from simsiam_zoo.errors import DataError, InputError, StoppedError
from simsiam_zoo.metrics import SPEED, Latest, read_rows
from simsiam_zoo.runtime.progress import StopRequest, duration
from simsiam_zoo.studies.job import (
    command,
    is_complete,
    is_held,
    job_status,
    note_end,
    read_run_result,
)
from simsiam_zoo.studies.launcher import Launcher, Resources
from simsiam_zoo.studies.plan import OTHER_OUT, PLAN, StudyJob, StudyPlan, write_plan
from simsiam_zoo.studies.selection import EVERY_ARM, Selection, move_aside
from simsiam_zoo.studies.tuning import figures, has_reached, rounds

_POLL = 0.25
_GRACE = 120.0
"""Seconds for which jobs that were asked to stop may save what they have."""
_TAIL = 1 << 14
"""Bytes of metrics.jsonl that are read for the newest figures."""

_REST = 10
"""Times as long as `changed` took, it is not called again where no job has ended."""

_LIVE_SECONDS, _LINE_SECONDS = 1.0, 30.0

_TRAINING = 0.9
"""Of a run's time, about; its evaluation is the rest."""


@dataclass
class Running:
    """The jobs of a study: to be started, in order; by the launcher's id; with their exit code.

    Those that were complete from the start have ended with 0. `called`: what they are.
    """

    waiting: deque[StudyJob] = field(default_factory=deque)
    started: dict[str, StudyJob] = field(default_factory=dict)
    ended: list[tuple[StudyJob, int]] = field(default_factory=list)
    called: str = "runs"


class StudyProgress:
    """A line for each job that ends; below them, or now and then, one for each that runs.

    It is shown on `console`; None: nowhere.
    """

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._live: Live | None = None
        if console is not None and console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(console=console, auto_refresh=False, transient=True)
        self._shown: Running | None = None
        self._told = 0
        self._before = 0  # jobs that were complete when this began
        self._began = self._last = time.monotonic()

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
        if self._shown is not state:
            self._shown, self._told = state, len(state.ended)
            self._began, self._before = time.monotonic(), self._told
            self.say(f"{total} {state.called}, {self._told} of them complete already")
        for job, code in state.ended[self._told :]:
            self.say(f"{job}: {job_outcome(job, code)}")
        self._told = len(state.ended)
        now = time.monotonic()
        if now - self._last >= (_LINE_SECONDS if self._live is None else _LIVE_SECONDS):
            self._last = now
            lines = [f"{job}: {run_status(job)}" for job in state.started.values()]
            done = f"{self._told} of {total} {state.called} done"
            left = seconds_left(state, self._before, now - self._began)
            lines.append(done if left is None else f"{done}, about {duration(left)} left")
            if self._live is None:
                for line in lines:
                    self.say(line)
            else:
                last = Text(lines.pop(), style="dim")
                self._live.update(Group(*map(_plain, lines), last), refresh=True)


def seconds_left(state: Running, before: int, elapsed: float) -> float | None:
    """Until all jobs have ended, by the images that were trained on; None while nothing tells.

    The first `before` were complete when the `elapsed` seconds began.
    """
    done = sum(_images(job) for job, _ in state.ended[before:])
    left = sum(map(_images, state.waiting))
    for job in state.started.values():
        rows, whole, share = _newest_rows(job), _images(job), 0.0
        if rows and job.steps:
            share = _TRAINING * min(rows[-1].get("step", 0) / job.steps, 1.0)
        done += share * whole
        left += (1 - share) * whole
    return elapsed * left / done if done else None


def _images(job: StudyJob) -> float:
    """How many a job trains on, an image as often as it is seen; 0 where that is not known."""
    return float(job.steps * job.arm.recipe.training.batch_size)


def _newest_rows(job: StudyJob) -> list[dict[str, Any]]:
    """The end of a job's metrics."""
    return read_rows(job.folder / "run" / "metrics.jsonl", _TAIL)


def run_status(job: StudyJob) -> str:
    """How far a job's run is, by the end of its metrics."""
    rows = _newest_rows(job)
    if not rows:
        return "starting"
    latest, training = Latest(rows), job.arm.recipe.training
    speed, step = latest.values.get(SPEED), latest.values.get("step", 0)
    epoch = min(int(latest.values.get("epoch", 0)) + 1, training.epochs)
    doing = "training"
    if 0 < job.steps <= step:
        doing = "evaluating"
    elif job.steps and speed:
        left = (job.steps - step) * training.batch_size / speed
        doing = f"{duration(left)} left"
    figures = (f"{name} {text}" for name, text in latest.texts().items())
    return "  ".join([f"epoch {epoch}/{training.epochs}", *figures, doing])


def job_outcome(job: StudyJob, code: int) -> str:
    """How a job ended, in a word or two."""
    if code == StoppedError.exit_code:
        figure = figures(job.folder).get(job.until)
        return "stopped" if figure is None else f"{figure:.1%} after epoch {job.until}"
    with suppress(DataError):
        if (result := read_run_result(job.folder)) is not None:
            return result.verdict
    error = str((job_status(job.folder) or {}).get("error") or "").partition("\n")[0]
    why = f"{error}; " if error else ""
    return f"failed (exit code {code}): {why}see {job.folder / 'log.txt'}"


def _plain(text: str) -> Text:
    """For `rich`, without its markup and control characters: labels are other people's."""
    return Text("".join(char for char in text if char.isprintable()), no_wrap=True)


def run_study(
    plan: StudyPlan,
    folder: Path,
    launcher: Launcher,
    *,
    jobs: int,
    resources: Resources,
    progress: StudyProgress,
    selection: Selection = EVERY_ARM,
    changed: Callable[[], object] = lambda: None,
    every: float = math.inf,
    choose: Callable[[StudyPlan], StudyPlan] = lambda plan: plan,
) -> list[tuple[StudyJob, int]]:
    """Run what is not complete, `jobs` at a time; every job with its exit code: a failure is one.

    Args:
        plan, folder: the study's.
        launcher, jobs, resources: what starts the processes, how many at once, with what each.
        progress: is shown how they are.
        selection: the arms that run, and those that run anew.
        changed: called after a job has ended, and after `every` so many seconds.
        choose: the plan with what was tuned, once the runs that choose have ended.

    Raises:
        InputError: the folder cannot be written, holds something else or another process runs a
            study there, the launcher cannot start anything, or `move_aside` cannot move.
        StoppedError: a signal asked to stop; the jobs were asked to as well, and saved.
    """
    with _held(folder), ExitStack() as ends:
        if callable(close := getattr(launcher, "close", None)):
            ends.callback(close)
        anew = [job for job in plan.jobs(folder) if job.arm.name in selection.again]
        anew += plan.tuning_jobs(folder, selection.again)
        for old, new in move_aside(anew).items():
            progress.say(f"moved: {old.relative_to(folder)} is {new.relative_to(folder)} now")
        write_plan(plan, folder)

        def work(state: Running) -> Running:
            _work(state, launcher, jobs, resources, stop, progress, changed, every)
            return state

        with StopRequest() as stop, progress:
            state = Running()
            for choosing in rounds(plan, folder, selection.arms(plan)):
                if not stop.requested:
                    state = work(Running(deque(choosing), called="runs that choose"))
            if not stop.requested:
                if plan.tune is not None:
                    plan = choose(plan)
                    write_plan(plan, folder)
                state = work(Running(deque(selection.jobs(plan, folder))))
    if stop.requested:
        left = len(state.waiting) + len(state.started) + sum(code != 0 for _, code in state.ended)
        raise StoppedError(
            f"stopped with {left} {state.called} to go on with",
            f"Go on with: {plan.command}{selection.flags()}" if plan.command else None,
        )
    return state.ended


def _work(
    state: Running,
    launcher: Launcher,
    jobs: int,
    resources: Resources,
    stop: StopRequest,
    progress: StudyProgress,
    changed: Callable[[], object],
    every: float,
) -> None:
    """Run all that waits, until a stop is asked for."""
    due = 0.0 if every < math.inf else math.inf
    try:
        while (state.waiting or state.started) and not stop.requested:
            for job in _to_start(state, jobs):
                (job.folder / "status.json").unlink(missing_ok=True)
                argv = command(job.folder, job.metrics, job.until)
                state.started[launcher.submit(argv, job.folder, resources)] = job
            ended = _collect(state, launcher)
            for job, code in ended:
                note_end(job.folder, code)
            if ended or time.monotonic() >= due:
                began = time.monotonic()
                changed()
                due = time.monotonic() + max(every, _REST * (time.monotonic() - began))
            progress.show(state)
            time.sleep(_POLL)
        if stop.requested:
            progress.say("stopping: what runs is saved")
    finally:  # none is left, unless the study was stopped or failed
        for started in state.started:
            launcher.cancel(started)
    _wait_for(state, launcher)


def _wait_for(state: Running, launcher: Launcher) -> None:
    """Give what was asked to stop the time to save."""
    until = time.monotonic() + _GRACE
    while state.started and time.monotonic() < until:
        _collect(state, launcher)
        time.sleep(_POLL)


def _to_start(state: Running, jobs: int) -> Iterator[StudyJob]:
    """What waits and has room; what is complete has ended.

    A job that a process of an earlier study holds (that was killed) waits for it.
    """
    for job in list(state.waiting):
        if is_held(job.folder):
            continue
        if is_complete(job.folder, job.metrics) or (
            job.until and has_reached(job.folder, job.until)
        ):
            state.waiting.remove(job)
            state.ended.append((job, 0))
        elif len(state.started) < jobs:
            state.waiting.remove(job)
            yield job


def _collect(state: Running, launcher: Launcher) -> list[tuple[StudyJob, int]]:
    """Take away what has ended, and return it."""
    codes = {started: launcher.poll(started) for started in state.started}
    ended = [(state.started.pop(name), code) for name, code in codes.items() if code is not None]
    state.ended += ended
    return ended


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The study's folder, held by one process at a time; refused where it holds something else."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is no folder", OTHER_OUT)
    other = folder.is_dir() and not (folder / PLAN).exists()
    if other and any(entry.name != "lock" for entry in folder.iterdir()):
        raise InputError(f"{folder} holds something that is no study", OTHER_OUT)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / "lock").acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another process runs the study in {folder}", f"Wait for it. {OTHER_OUT}"
        ) from None
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}", OTHER_OUT) from None
    with held:
        yield
