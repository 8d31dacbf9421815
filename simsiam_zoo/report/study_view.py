"""A study as the report's pages see it: text is clean, figures are finite or None."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DONE, RUNNING, WAITING, FAILED = "done", "running", "waiting", "failed"


@dataclass(frozen=True)
class Figure:
    """A mean over seeds; `std` is None for one seed."""

    mean: float
    std: float | None
    n: int | None


@dataclass(frozen=True)
class Difference:
    """Arm minus base, paired by seed, with its 95 % t-interval where there is one."""

    mean: float
    low: float | None
    high: float | None
    n: int | None


@dataclass(frozen=True)
class ArmRun:
    """One arm with one seed.

    Args:
        top1: share by protocol.
        intervals: of a share, from the test images alone.
        images: how many test images, by protocol.
        baselines: shares by network that was not trained, then by protocol.
    """

    seed: int
    folder: str
    state: str
    error: str | None
    exit_code: int | None
    verdict: str | None
    reason: str | None
    top1: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    images: dict[str, int]
    versions: dict[str, int]
    baselines: dict[str, dict[str, float]]
    std_sqrt_d: float | None
    effective_rank: float | None
    loss: float | None
    steps: int | None
    seconds: float | None
    identity: str | None


@dataclass(frozen=True)
class Arm:
    """What was substituted, and what came of it.

    Args:
        same_as: label of the arm that it equals, or `base`: that is run in its place.
        runs: its own.
        shown_runs: those whose figures it has: its own, or those of the arm that it equals.
    """

    number: int
    name: str
    label: str
    part: str | None
    is_base: bool
    same_as: str | None
    substitution: dict[str, str]
    differences: list[tuple[str, str, str]]
    expect: list[str]
    paper: float | None
    warnings: list[str]
    runs: list[ArmRun]
    shown_runs: list[ArmRun]
    done: int
    asked: int
    metrics: dict[str, Figure]
    difference: dict[str, Difference]
    std_sqrt_d: Figure | None
    effective_rank: Figure | None
    loss: Figure | None
    verdicts: dict[str, int]
    verdict: str | None
    as_expected: bool | None

    @property
    def substituted(self) -> str:
        """`gradient = none`, the substitutions in one line."""
        return "; ".join(f"{path} = {value}" for path, value in self.substitution.items())

    @property
    def states(self) -> dict[str, int]:
        """How many runs are in each state."""
        found = [run.state for run in self.runs]
        return {state: found.count(state) for state in dict.fromkeys(found)}

    def substitutes(self, part: str) -> bool:
        """Whether it replaces this part or a setting of it."""
        paths = {path.partition(".")[0] for path in self.substitution}
        return part in paths or self.part == part


@dataclass(frozen=True)
class View:
    """A whole study. `metrics` are the figures' own protocol texts, the main one first."""

    title: str
    description: str
    study: str
    preset: str
    seeds: list[int]
    threads: int | None
    arms: list[Arm]
    metrics: list[str]
    stale: list[str]
    not_run: list[tuple[str, int | None, str]]
    notes: list[str]
    provenance: list[tuple[str, list[tuple[str, str]]]]

    @property
    def base(self) -> Arm | None:
        """The arm that the others are compared with."""
        return next((arm for arm in self.arms if arm.is_base), None)

    @property
    def runs(self) -> list[tuple[Arm, ArmRun]]:
        """Every run with its arm."""
        return [(arm, run) for arm in self.arms for run in arm.runs]

    @property
    def main(self) -> str | None:
        """The main metric."""
        return self.metrics[0] if self.metrics else None

    def images(self, metric: str) -> list[int]:
        """The numbers of test images that a metric was measured on; one, as a rule."""
        return sorted({run.images[metric] for _, run in self.runs if metric in run.images})

    def versions(self, metric: str) -> list[int]:
        """The versions of the metric's protocol; one, as a rule."""
        return sorted({run.versions[metric] for _, run in self.runs if metric in run.versions})


def run_folder(study: Path, run: ArmRun) -> Path | None:
    """The run's folder, if it lies in the study's."""
    folder = study / run.folder
    try:
        inside = bool(run.folder) and folder.resolve().is_relative_to(study.resolve())
    except (OSError, ValueError):  # no path at all
        return None
    return folder if inside else None
