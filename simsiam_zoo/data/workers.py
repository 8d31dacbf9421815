"""Worker processes: how many make batches, and how they end."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import threading

from simsiam_zoo.runtime.cores import available_cores

MAX_AUTO_WORKERS = 16


def default_workers(device_type: str) -> int:
    """Worker processes per rank where the user names none.

    On a CPU the network needs the cores: one worker at most. Beside an accelerator every core but
    the rank's own, shared by the ranks of the machine (`LOCAL_WORLD_SIZE`, set by torchrun).
    """
    ranks = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    cores = available_cores() // ranks
    if device_type == "cpu":
        return 1 if cores > 1 else 0
    return max(0, min(cores - 1, MAX_AUTO_WORKERS))


def end_with_parent() -> None:
    """Have this worker process end when the main one does, however it ended.

    Workers started by a forkserver are not told of that: after a SIGKILL the forkserver and its
    workers would wait for each other for ever.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
