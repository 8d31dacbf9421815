"""A study under way: a queue of jobs, a launcher, and what is shown of them. No torch here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from simsiam_zoo.errors import InputError, StoppedError
from simsiam_zoo.runtime.progress import StopRequest
from simsiam_zoo.studies.job import command, is_complete, is_held, note_end
from simsiam_zoo.studies.launcher import Launcher, Resources
from simsiam_zoo.studies.plan import StudyJob, StudyPlan, refuse_other_folder, write_plan
from simsiam_zoo.studies.progress import Running, StudyProgress

_POLL = 0.25
_GRACE = 120.0
"""Seconds for which jobs that were asked to stop may save what they have."""


def run_study(
    plan: StudyPlan,
    folder: Path,
    launcher: Launcher,
    *,
    jobs: int,
    resources: Resources,
    progress: StudyProgress,
    changed: Callable[[], object] = lambda: None,
) -> list[tuple[StudyJob, int]]:
    """Run what is not complete, `jobs` at a time; every job with its exit code.

    A job's failure is a result and stops no other.

    Args:
        plan: what to run.
        folder: the study's.
        launcher: starts the processes.
        jobs: how many at once.
        resources: of each.
        progress: is shown how they are.
        changed: called after a job has ended.

    Raises:
        InputError: the folder cannot be written, holds something else or another process runs a
            study there, or the launcher cannot start anything.
        StoppedError: a signal asked to stop; the jobs were asked to as well, and saved.
    """
    refuse_other_folder(folder)  # before a lock is left there
    with _held(folder), ExitStack() as ends:
        if callable(close := getattr(launcher, "close", None)):
            ends.callback(close)
        write_plan(plan, folder)
        state = Running(deque(plan.jobs(folder)))
        with StopRequest() as stop, progress:
            try:
                while (state.waiting or state.started) and not stop.requested:
                    for job in _to_start(state, plan.metrics, jobs):
                        (job.folder / "status.json").unlink(missing_ok=True)
                        argv = command(job.folder, plan.metrics)
                        state.started[launcher.submit(argv, job.folder, resources)] = job
                    ended = _collect(state, launcher)
                    for job, code in ended:
                        note_end(job.folder, code)
                    if ended:
                        changed()
                    progress.show(state)
                    time.sleep(_POLL)
                if stop.requested:
                    progress.say("stopping: what runs is saved")
            finally:  # none is left, unless the study was stopped or failed
                for started in state.started:
                    launcher.cancel(started)
            until = time.monotonic() + _GRACE
            while state.started and time.monotonic() < until:
                _collect(state, launcher)
                time.sleep(_POLL)
    if stop.requested:
        left = len(state.waiting) + len(state.started) + sum(code != 0 for _, code in state.ended)
        raise StoppedError(
            f"stopped with {left} runs to go on with",
            f"Go on with: {plan.command}" if plan.command else None,
        )
    return state.ended


def _to_start(state: Running, metrics: tuple[str, ...], jobs: int) -> Iterator[StudyJob]:
    """What waits and has room; what is complete has ended.

    A job that a process of an earlier study holds (that was killed) waits for it.
    """
    for job in list(state.waiting):
        if is_held(job.folder):
            continue
        if is_complete(job.folder, metrics):
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
    """The study's folder, held by one process at a time."""
    way_out = "Give the study another --out."
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / "lock").acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another process runs the study in {folder}", f"Wait for it. {way_out}"
        ) from None
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}", way_out) from None
    with held:
        yield
