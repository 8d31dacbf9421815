"""How many cores this process may use."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """Cores that this process may use: by affinity and by the cgroup's quota, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quotas = [_quota_v2(_CGROUP / "cpu.max"), _quota_v1(_CGROUP / "cpu")]
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas if quota)]))


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
