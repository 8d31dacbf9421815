"""A study under way: a queue of jobs, a launcher, and what is shown of them. No torch here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from simsiam_zoo.errors import InputError, StoppedError
from simsiam_zoo.runtime.signals import StopRequest
from simsiam_zoo.studies.job import BUSY, command, is_complete, is_held, note_end
from simsiam_zoo.studies.launcher import Launcher, LaunchError, Resources
from simsiam_zoo.studies.plan import StudyJob, StudyPlan, refuse_other_folder, write_plan
from simsiam_zoo.studies.progress import Running, StudyProgress

_POLL = 0.25
_GRACE = 120.0
"""Seconds for which jobs that were asked to stop may save what they have."""

_TRIES = 3
"""Starts of one job in a study: a folder may be busy for a moment."""


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
    """Run what is not complete, `jobs` at a time; a job's failure is a result and stops no other.

    Args:
        plan: what to run.
        folder: the study's.
        launcher: starts the processes.
        jobs: how many at once.
        resources: of each.
        progress: is shown how they are.
        changed: called after a job has ended.

    Returns:
        Every job with its exit code.

    Raises:
        InputError: the folder cannot be written, holds something else or another process runs a
            study there, or the launcher cannot start anything.
        StoppedError: a signal asked to stop; the jobs were asked to as well, and saved.
    """
    metrics = plan.study.metrics
    refuse_other_folder(folder)  # before a lock is left there
    with _held(folder):
        write_plan(plan, folder)
        state, tries = Running(), dict[Path, int]()
        for job in plan.jobs(folder):
            if is_complete(job.folder, metrics):
                state.ended.append((job, 0))
            else:
                state.waiting.append(job)
        try:
            with StopRequest() as stop, progress:
                while (state.waiting or state.busy) and not stop.requested:
                    _start(state, launcher, jobs, resources, metrics, tries)
                    if _collect(state, launcher, metrics, tries):
                        changed()
                    progress.show(state)
                    time.sleep(_POLL)
                if stop.requested:
                    progress.say("stopping: what runs is saved")
                    _stop(state, launcher)
        finally:
            if callable(close := getattr(launcher, "close", None)):
                close()
    if stop.requested:
        left = len(state.waiting) + state.busy
        raise StoppedError(
            f"stopped with {left + sum(code != 0 for _, code in state.ended)} runs to go on with",
            f"Go on with: {plan.command}" if plan.command else None,
        )
    return state.ended


def _start(
    state: Running,
    launcher: Launcher,
    jobs: int,
    resources: Resources,
    metrics: tuple[str, ...],
    tries: dict[Path, int],
) -> None:
    while state.waiting and state.busy < jobs:
        job = state.waiting.popleft()
        if is_held(job.folder):
            state.elsewhere.append(job)
            continue
        tries[job.folder] = tries.get(job.folder, 0) + 1
        (job.folder / "status.json").unlink(missing_ok=True)
        try:
            started = launcher.submit(command(job.folder, metrics), job.folder, resources)
        except LaunchError:
            for other in state.started:
                launcher.cancel(other)
            raise
        state.started[started] = job


def _collect(
    state: Running, launcher: Launcher, metrics: tuple[str, ...], tries: dict[Path, int]
) -> bool:
    """Take away what has ended; whether anything had."""
    before = len(state.ended)
    for started, job in list(state.started.items()):
        code = launcher.poll(started)
        if code is None:
            continue
        del state.started[started]
        if code == BUSY and tries[job.folder] < _TRIES:
            state.waiting.append(job)
            continue
        note_end(job.folder, code)
        state.ended.append((job, code))
    for job in [job for job in state.elsewhere if not is_held(job.folder)]:
        state.elsewhere.remove(job)
        if is_complete(job.folder, metrics):
            state.ended.append((job, 0))
        else:
            state.waiting.appendleft(job)
    return len(state.ended) > before


def _stop(state: Running, launcher: Launcher) -> None:
    """Ask what was started here to stop, and wait until it has."""
    for started in state.started:
        launcher.cancel(started)
    until = time.monotonic() + _GRACE
    while state.started and time.monotonic() < until:
        for started in list(state.started):
            if launcher.poll(started) is not None:
                del state.started[started]
        time.sleep(_POLL)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The study's folder, held by one process at a time."""
    way_out = "Give the study another --out."
    lock = FileLock(folder / "lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another process runs the study in {folder}", f"Wait for it. {way_out}"
        ) from None
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}", way_out) from None
    try:
        yield
    finally:
        lock.release()
