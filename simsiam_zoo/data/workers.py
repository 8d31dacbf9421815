"""How many processes make batches: from the cores that this process may really use."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

MAX_AUTO_WORKERS = 16

_CGROUP = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """Cores that this process may use: by affinity and by the cgroup's quota, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quotas = [_quota_v2(_CGROUP / "cpu.max"), _quota_v1(_CGROUP / "cpu")]
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas if quota)]))


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


def _quota_v2(file: Path) -> float | None:
    with suppress(OSError, ValueError):
        quota, period = file.read_text().split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    return None


def _quota_v1(folder: Path) -> float | None:
    with suppress(OSError, ValueError):
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return quota / int((folder / "cpu.cfs_period_us").read_text()) if quota > 0 else None
    return None
