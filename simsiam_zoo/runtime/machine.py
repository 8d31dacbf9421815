"""What this machine and its Python have: cores, threads, packages; and what torchrun states."""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress
from pathlib import Path

from simsiam_zoo.errors import InputError

WAITING = {"GOMP_SPINCOUNT": "10000"}
"""What `wait_briefly` sets."""

_CGROUP = Path("/sys/fs/cgroup")
_NVIDIA = Path("/dev/nvidia0")


def announced_world_size() -> int:
    """World size that torchrun states, before the processes have met."""
    return max(1, stated_number("WORLD_SIZE", 1))


def announced_rank() -> int:
    """This process's rank as torchrun states it; 0 without torchrun, whatever RANK is left over."""
    return stated_number("RANK", 0) if announced_world_size() > 1 else 0


def restarts() -> int:
    """How often torchrun has started this run's processes anew."""
    return stated_number("TORCHELASTIC_RESTART_COUNT", 0)


def stated_number(variable: str, default: int) -> int:
    """The whole number in an environment variable; InputError where it is something else."""
    text = os.environ.get(variable, "").strip()
    try:
        return int(text) if text else default
    except ValueError:
        raise InputError(
            f"the environment variable {variable} is {text!r}, and no whole number",
            f"Unset {variable}, or start the processes by torchrun, which sets it.",
        ) from None


def available_cores() -> int:
    """Cores that this process may use: by affinity and by the cgroup's quota, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quotas = [_quota_v2(_CGROUP / "cpu.max"), _quota_v1(_CGROUP / "cpu")]
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas if quota)]))


def has_nvidia_gpu() -> bool:
    """Whether Linux has one: a guess that spares the import of torch."""
    return _NVIDIA.exists()


def stated_threads(ranks: int = 1) -> int | None:
    """CPU threads by `OMP_NUM_THREADS`; None where it states none. `ranks`: as below."""
    stated = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    # torchrun sets 1 for its ranks where the user has set nothing: no wish of anybody's.
    if stated.isdigit() and int(stated) and not (ranks > 1 and stated == "1"):
        return int(stated)
    return None


def default_threads(ranks: int = 1) -> int:
    """CPU threads where nobody named a number: `OMP_NUM_THREADS`, else one for each core.

    `ranks` are the processes of the run on this machine, which share its cores.
    """
    return stated_threads(ranks) or max(1, available_cores() // ranks)


def wait_briefly() -> None:
    """Let the threads of OpenMP sleep after a short wait for each other, if torch is yet to come.

    By default they spin for long, and keep from its core whatever they wait for. Sleeping at once
    costs a third of the speed of short steps on idle cores (`benchmarks/step.py busy`). Child
    processes inherit it; what the user's environment says of it takes precedence.
    """
    said = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    if "torch" not in sys.modules and not any(name in os.environ for name in said):
        os.environ.update(WAITING)


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


def unmet_requirements(distribution: str = "simsiam-zoo") -> list[str]:
    """One line for each required package that is missing, or of a version that is refused.

    The floors are those of the installed metadata, so `pyproject.toml` alone states them. Extras
    are not looked at. Empty where `distribution` itself is not installed.
    """
    # Not at the top: every command imports this module.
    from importlib.metadata import PackageNotFoundError, requires
    from importlib.metadata import version as installed_version

    from packaging.requirements import Requirement

    try:
        stated = requires(distribution) or []
    except PackageNotFoundError:
        return []
    unmet = []
    for requirement in map(Requirement, stated):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, wanted = requirement.name, str(requirement.specifier)
        try:
            found = installed_version(name)
        except PackageNotFoundError:
            unmet.append(f"{name} is not installed, and {name}{wanted} is needed")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            unmet.append(f"{name} {found} is here, and {name}{wanted} is needed")
    return unmet
