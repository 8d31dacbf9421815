"""What the system lets worker processes have: shared memory and descriptors, looked at beforehand.

A full /dev/shm kills a worker by SIGBUS in the middle of a run, and no message says why.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from simsiam_zoo.errors import InputError

_SHARED_MEMORY = Path("/dev/shm")
_OWN_DESCRIPTORS = 192  # open shards, the log, what libraries hold
_DESCRIPTORS_EACH = 8  # of one worker: pipes, queues, its sentinel


def affordable_workers(workers: int, batch_bytes: int, prefetch: int, kept: int = 0) -> int:
    """As many of `workers` as fit into free shared memory; a line on stderr where it is fewer.

    Args:
        workers: how many are wanted.
        batch_bytes: pixels of one batch of one rank.
        prefetch: batches that each makes ahead.
        kept: batches beside, of all of them together.

    Raises:
        InputError: not one fits, or the process may not open as many files as they need.
    """
    if not workers:
        return 0
    each, beside = prefetch * batch_bytes, kept * batch_bytes
    free = _free_shared_memory()
    fitting = workers
    if free is not None and each:
        fitting = max(0, min(workers, (free - beside) // each))
    if not fitting:
        raise InputError(
            f"{_SHARED_MEMORY} has {_mib(free or 0)} free, one loader process needs"
            f" {_mib(each + beside)} ({prefetch + kept} batches)",
            "Give it more (docker run --shm-size), or use data.workers = 0 or a smaller batch.",
        )
    if fitting < workers:
        print(
            f"simsiam-zoo: {fitting} loader processes, not {workers}: {_SHARED_MEMORY} has"
            f" {_mib(free or 0)} free and they need {_mib(beside)} and each {_mib(each)}",
            file=sys.stderr,
        )
    _allow_descriptors(_OWN_DESCRIPTORS + fitting * (_DESCRIPTORS_EACH + prefetch + 1))
    return fitting


def _free_shared_memory() -> int | None:
    """Bytes; None where the system has no such folder and bounds nothing."""
    try:
        status = os.statvfs(_SHARED_MEMORY)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def _allow_descriptors(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise InputError(
            f"this process may open {hard} files; the loader processes need about {needed}",
            "Raise the limit (ulimit -n), or use fewer data.workers.",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _mib(count: int) -> str:
    return f"{count / (1 << 20):,.1f} MiB"
