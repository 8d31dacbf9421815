"""How many cores this process may use."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path


def available_cores() -> int:
    """Cores that this process may use: by affinity and by the cgroup's quota, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        if quota != "max":
            cores = min(cores, math.ceil(int(quota) / int(period)))
    with suppress(OSError, ValueError):
        old = Path("/sys/fs/cgroup/cpu")
        limit = int((old / "cpu.cfs_quota_us").read_text())
        if limit > 0:
            period_us = int((old / "cpu.cfs_period_us").read_text())
            cores = min(cores, math.ceil(limit / period_us))
    return max(1, cores)
