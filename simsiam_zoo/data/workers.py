"""How many processes make batches."""

from __future__ import annotations

import os

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
