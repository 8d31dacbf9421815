"""Worker processes: how many there are, how they end, and numbered tasks shared out among them."""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.process
import multiprocessing.resource_tracker
import os
import shutil
import signal
import tempfile
import threading
import weakref
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cv2

from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.runtime.cores import available_cores

MAX_AUTO_WORKERS = 16

MAX_TMPDIR = 60
"""Bytes of the path of the folder for temporary files in which sockets fit."""

GRACE_SECONDS = 1.0
"""For a worker that is not needed any more to end in good order."""


def default_workers(device_type: str) -> int:
    """Worker processes per rank where the user names none.

    On a CPU the network needs the cores: one worker at most. Beside an accelerator every core but
    the rank's own, shared by the ranks of the machine (`LOCAL_WORLD_SIZE`, set by torchrun).
    """
    ranks = max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))
    cores = available_cores() // ranks
    if device_type == "cpu":
        return 1 if cores > 1 else 0
    return max(0, min(cores - 1, MAX_AUTO_WORKERS))


def forkserver(*preloaded: str) -> Any:
    """The context whose processes fork from a clean server: forked children of threads may hang.

    The server is started here. Ctrl-C is sent to all processes of a terminal; the server and its
    children do not take it, from their first moment on: the main process decides when to end.

    Args:
        preloaded: modules that the server imports, once for all its children.
    """
    _shorten_socket_paths()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preloaded))
    with starting(), _safe_path():
        multiprocessing.resource_tracker.ensure_running()  # first: it lifts what is blocked
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit it
        try:
            multiprocessing.forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


@contextmanager
def starting() -> Iterator[None]:
    """Around what starts worker processes: tell one that cannot start as what it is.

    Else a pipe that broke passes for a reader of stdout that has gone, and an end of file for
    Ctrl-C.

    Raises:
        DataError: a process could not be started, or died at once.
    """
    try:
        yield
    except (EOFError, OSError) as error:
        raise DataError(
            f"a worker process cannot be started ({type(error).__name__}: {error})",
            "Too little memory or too many processes may be why; use fewer workers.",
        ) from error


@contextmanager
def _safe_path() -> Iterator[None]:
    """Start Python without the current folder on its path: a `random.py` there is not ours.

    Workers get the path of this process later.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _shorten_socket_paths() -> None:
    """Let sockets lie in a short folder where the one for temporary files has a long name.

    A socket's path has at most 107 bytes on Linux (103 on macOS), of which multiprocessing's names
    and torch's need some 40.
    """
    config = multiprocessing.process.current_process()._config  # type: ignore[attr-defined]
    if config.get("tempdir") or len(os.fsencode(tempfile.gettempdir())) <= MAX_TMPDIR:
        return
    for folder in (Path("/tmp"), Path("/var/tmp"), Path.cwd()):
        if len(os.fsencode(folder)) <= MAX_TMPDIR and os.access(folder, os.W_OK):
            short = tempfile.mkdtemp(prefix="zoo-", dir=folder)
            atexit.register(_remove, short, os.getpid())
            config["tempdir"] = short
            return
    raise InputError(
        f"TMPDIR is a path of {len(tempfile.gettempdir())} characters: too long for sockets",
        f"Set TMPDIR to a path of at most {MAX_TMPDIR}.",
    )


def _remove(folder: str, owner: int) -> None:
    """Remove a folder, in the process that made it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


class Lifeline:
    """Held by the main process while it wants its workers; they end when it lets go.

    A worker that is told to end finishes what it does first. In the middle of a download that may
    be minutes, for which a main process that wants to exit would wait: workers ignore SIGTERM.
    """

    def __init__(self) -> None:
        self.end, self._held = multiprocessing.Pipe(duplex=False)
        _HELD.add(self)

    def let_go(self) -> None:
        """Have the workers end within `GRACE_SECONDS`."""
        self._held.close()


_HELD: weakref.WeakSet[Lifeline] = weakref.WeakSet()


@atexit.register  # later than multiprocessing did, so it runs before children are waited for
def _let_go_of_all() -> None:
    for lifeline in list(_HELD):
        lifeline.let_go()


def end_with_parent(lifeline: Connection | None = None) -> None:
    """Have this worker process end when the main one does, however it ended.

    Workers started by a forkserver are not told of that: after a SIGKILL the forkserver and its
    workers would wait for each other for ever.

    Args:
        lifeline: the `end` of a `Lifeline`: let go, it ends this process too.
    """
    threading.Thread(target=_wait_for_parent, args=(lifeline,), daemon=True).start()


def _wait_for_parent(lifeline: Connection | None) -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    ends: list[Connection | int] = [parent.sentinel]
    if lifeline is not None:
        ends.append(lifeline)
    if parent.sentinel not in wait(ends):
        wait([parent.sentinel], GRACE_SECONDS)
    os._exit(1)


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
    context = forkserver(__name__, "webdataset")
    with starting():
        pool = ProcessPoolExecutor(jobs, context, _start, (tasks,))
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
