"""Numbered tasks shared out among processes, for work that needs no order."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

import cv2

from simsiam_zoo.data.workers import end_with_parent
from simsiam_zoo.errors import DataError

R_co = TypeVar("R_co", covariant=True)


class Tasks(Protocol[R_co]):
    """Tasks by number; sent to each worker process once."""

    def run(self, number: int) -> R_co:
        """Do one of them."""


def run_tasks(tasks: Tasks[R_co], count: int, jobs: int) -> Generator[tuple[int, R_co]]:
    """Results of tasks 0 to count - 1 with their numbers, as they are done.

    Closing it ends after the tasks at hand.

    Args:
        tasks: what to do.
        count: how many there are.
        jobs: processes; with 1 this one does it all, in order.

    Raises:
        DataError: a worker process died.
    """
    jobs = min(jobs, count)
    if jobs <= 1:
        for number in range(count):
            yield number, tasks.run(number)
        return
    context = multiprocessing.get_context("forkserver")  # forked from a process without threads
    context.set_forkserver_preload([__name__, "webdataset"])  # imported once, not by each worker
    pool = ProcessPoolExecutor(jobs, context, _start, (tasks,))
    try:
        futures = {pool.submit(_run, number): number for number in range(count)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise DataError(
            "a worker process died", "It may have run out of memory; use fewer --jobs."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_TASKS: Tasks[object] | None = None


def _start(tasks: Tasks[object]) -> None:
    global _TASKS
    for number in (signal.SIGINT, signal.SIGTERM):  # the main process decides when to end
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
    end_with_parent()
    _TASKS = tasks


def _run(number: int) -> Any:
    assert _TASKS is not None
    return _TASKS.run(number)
