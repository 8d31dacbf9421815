"""Worker processes: how many there are, how they end, and numbered tasks shared out among them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

import cv2

from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.runtime.machine import available_cores

MAX_AUTO_WORKERS = 16

GRACE_SECONDS = 1.0
"""For a worker that is not needed any more to end in good order."""


def default_workers(device_type: str) -> int:
    """Worker processes per rank where the user names none.

    On a CPU the network needs the cores: one at most. Beside an accelerator every core but the
    rank's own, shared by the ranks of the machine (`LOCAL_WORLD_SIZE`, set by torchrun).
    """
    ranks = max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))
    cores = available_cores() // ranks
    if device_type == "cpu":
        return 1 if cores > 1 else 0
    return max(0, min(cores - 1, MAX_AUTO_WORKERS))


def forkserver(*preloaded: str) -> Any:
    """The context whose processes fork from a clean server: forked children of threads may hang.

    The server, which imports `preloaded`, is started here, and without the current folder on its
    path: a `random.py` there is not ours (workers get the path of this process later). Ctrl-C is
    sent to all processes of a terminal; the server and its children do not take it, from their
    first moment on: the main process decides when to end. InputError: see
    `refuse_script_without_guard`.
    """
    refuse_script_without_guard()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preloaded))
    unsaid = "PYTHONSAFEPATH" not in os.environ
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with starting():
        try:
            os.environ.setdefault("PYTHONSAFEPATH", "1")
            multiprocessing.resource_tracker.ensure_running()  # first: it lifts what is blocked
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit it
            multiprocessing.forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if unsaid:
                del os.environ["PYTHONSAFEPATH"]
    return context


def refuse_script_without_guard() -> None:
    """InputError where the main script would run anew in each worker process, which imports it.

    That is a script whose text has no `__name__`. What `python -m PACKAGE` runs is not imported. A
    script that came by a pipe is called `<stdin>`, which no worker process finds: it is forgotten.
    """
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if file is None or (spec is not None and spec.name.endswith("__main__")):
        return
    if file == "<stdin>":
        del main.__file__
        return
    with suppress(OSError):
        if b"__name__" not in Path(file).read_bytes():
            raise InputError(
                f"{file} would run again in each worker process that it starts, since Python's"
                " multiprocessing imports it there",
                'Put what it does below `if __name__ == "__main__":`; or go without worker'
                " processes: data.workers = 0, jobs = 1.",
            )


@contextmanager
def starting() -> Iterator[None]:
    """Around what starts worker processes: one that cannot start is a DataError.

    Else a pipe that broke passes for a reader of stdout that has gone, an end of file for Ctrl-C.
    """
    try:
        yield
    except (EOFError, OSError) as error:
        raise DataError(
            f"a worker process cannot be started ({type(error).__name__}: {error})",
            "Too little memory, too many processes or a long TMPDIR may be why; use fewer workers.",
        ) from error


def start_worker(lifeline: Connection | None = None, _number: int = 0) -> None:
    """What each worker process does first; it ends when the main one does, however that ended.

    Workers of a forkserver are not told of that: after a SIGKILL the server and its workers would
    wait for each other for ever. (torch's own watchdog looks at the parent's id: the server's.)
    The end of a pipe, `lifeline`, ends this process too when the other end is closed.
    """
    # Sent to the whole group, a job's scheduler say: the main process decides when to end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()


def _end_with_parent(lifeline: Connection | None) -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    ends: list[Connection | int] = [parent.sentinel, *([lifeline] if lifeline else [])]
    if parent.sentinel not in wait(ends):
        wait([parent.sentinel], GRACE_SECONDS)
    os._exit(1)


R = TypeVar("R")


def run_tasks(task: Callable[[int], R], count: int, jobs: int) -> Generator[tuple[int, R]]:
    """Results of `task` of 0 to count - 1 with their numbers, as they are done.

    It is sent to each of `jobs` processes once; with 1 this one does it all, in order. Closing it
    ends after the tasks at hand. Raises DataError where a worker process died.
    """
    jobs = min(jobs, count)
    if jobs <= 1:
        for number in range(count):
            yield number, task(number)
        return
    context = forkserver(__name__, "webdataset")
    with starting():
        pool = ProcessPoolExecutor(jobs, context, _start, (task,))
    try:
        with starting():
            futures = {pool.submit(_run, number): number for number in range(count)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise DataError(
            "a worker process died", "It may have run out of memory; use fewer --jobs."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start(task: Callable[[int], Any]) -> None:
    global _run_here
    start_worker()
    _run_here = task


_run_here: Callable[[int], Any]


def _run(number: int) -> Any:
    return _run_here(number)
