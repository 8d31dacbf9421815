"""A study as the report's files show it: text is clean, numbers are finite or None.

A study that is still running lacks figures, a failed arm has none, images may have no labels: here
is the one place where that is dealt with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from simsiam_zoo.report.text import clean, compact, entries, finite, items, line, tail

_T = TypeVar("_T")

DONE, RUNNING, WAITING, FAILED = "done", "running", "waiting", "failed"


@dataclass(frozen=True)
class SeedMean:
    """A mean over seeds; `std` is None for one seed."""

    mean: float
    std: float | None
    n: int | None


@dataclass(frozen=True)
class BaseDifference:
    """An arm minus the base, paired by seed, with its 95 % t-interval where there is one."""

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
class ReportArm:
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
    metrics: dict[str, SeedMean]
    difference: dict[str, BaseDifference]
    std_sqrt_d: SeedMean | None
    effective_rank: SeedMean | None
    loss: SeedMean | None
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
class StudyView:
    """A whole study. `metrics` are the figures' own protocol texts, the main one first."""

    title: str
    description: str
    study: str
    preset: str
    seeds: list[int]
    threads: int | None
    arms: list[ReportArm]
    metrics: list[str]
    stale: list[str]
    not_run: list[tuple[str, int | None, str]]
    notes: list[str]
    provenance: list[tuple[str, list[tuple[str, str]]]]

    @property
    def base(self) -> ReportArm | None:
        """The arm that the others are compared with."""
        return next((arm for arm in self.arms if arm.is_base), None)

    @property
    def runs(self) -> list[tuple[ReportArm, ArmRun]]:
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


def read_study(results: dict[str, Any]) -> StudyView:
    """Read the results of a study; unknown keys are left alone, missing figures are None."""
    arms = [_arm(number, entries(arm)) for number, arm in enumerate(items(results.get("arms")))]
    arms = [_with_figures(arm, _original(arm, arms)) for arm in arms]
    asked = [line(metric) for metric in items(results.get("metrics"))]
    return StudyView(
        title=line(results.get("title") or results.get("study") or "Study"),
        description=_paragraphs(results.get("description")),
        study=line(results.get("study") or ""),
        preset=line(results.get("preset") or ""),
        seeds=[seed for seed in items(results.get("seeds")) if isinstance(seed, int)],
        threads=_whole(results.get("threads")),
        arms=arms,
        metrics=_metrics(arms, asked),
        stale=[line(folder) for folder in items(results.get("stale"))],
        not_run=[_not_run(entries(each)) for each in items(results.get("not_run"))],
        notes=[line(note) for note in items(results.get("notes"))],
        provenance=_provenance(entries(results.get("provenance"))),
    )


def _arm(number: int, arm: dict[str, Any]) -> ReportArm:
    summary = entries(arm.get("summary"))
    name = line(arm.get("name") or f"arm {number + 1}")
    runs = [_run(entries(run)) for run in items(arm.get("runs"))]
    verdicts = {line(k): _whole(n) or 0 for k, n in entries(summary.get("verdicts")).items()}
    expected = summary.get("as_expected")
    return ReportArm(
        number=number,
        name=name,
        label=line(arm.get("label") or name),
        part=_text(arm.get("part")),
        is_base=arm.get("is_base") is True,
        same_as=_text(arm.get("same_as")),
        substitution={
            line(path): line(compact(value))
            for path, value in entries(arm.get("substitution")).items()
        },
        differences=[
            (line(each[0]), line(compact(each[1])), line(compact(each[2])))
            for each in items(arm.get("differences"))
            if len(items(each)) == 3
        ],
        expect=[line(verdict) for verdict in items(arm.get("expect"))],
        paper=finite(arm.get("paper")),
        warnings=[line(warning) for warning in items(arm.get("warnings"))],
        runs=runs,
        shown_runs=runs,
        done=_first(_whole(summary.get("done")), sum(run.state == DONE for run in runs)),
        asked=_first(_whole(summary.get("asked")), len(runs)),
        metrics=_by_name(summary.get("metrics"), _figure),
        difference=_by_name(summary.get("difference"), _difference),
        std_sqrt_d=_figure(summary.get("std_sqrt_d")),
        effective_rank=_figure(summary.get("effective_rank")),
        loss=_figure(summary.get("loss")),
        verdicts=verdicts,
        verdict=_text(summary.get("verdict")),
        as_expected=expected if isinstance(expected, bool) else None,
    )


def _original(arm: ReportArm, arms: list[ReportArm]) -> ReportArm:
    """The arm that this one equals; itself, as a rule."""
    same = (other for other in arms if other.name == arm.same_as or _both_base(arm, other))
    return arm if arm.same_as is None else next(same, arm)


def _both_base(arm: ReportArm, other: ReportArm) -> bool:
    return arm.same_as == "base" and other.is_base


def _with_figures(arm: ReportArm, original: ReportArm) -> ReportArm:
    """An arm that equals another one is not run: it has the figures of that one's runs."""
    if original is arm:
        return arm
    return replace(
        arm,
        same_as="base" if original.is_base else original.label,
        runs=[],
        shown_runs=original.runs,
        done=original.done,
        asked=original.asked,
        metrics=original.metrics,
        difference={} if original.is_base else original.difference,
        std_sqrt_d=original.std_sqrt_d,
        effective_rank=original.effective_rank,
        loss=original.loss,
        verdicts=original.verdicts,
        verdict=original.verdict,
    )


def _run(run: dict[str, Any]) -> ArmRun:
    measured = {line(k): entries(v) for k, v in entries(run.get("metrics")).items()}
    error = run.get("error")
    return ArmRun(
        seed=_first(_whole(run.get("seed")), 0),
        folder=run["folder"] if isinstance(run.get("folder"), str) else "",
        state=line(run.get("state") or WAITING),
        error=tail(clean(error)).strip() if error else None,
        exit_code=_whole(run.get("exit_code")),
        verdict=_text(run.get("verdict")),
        reason=_text(run.get("reason")),
        top1=_known({name: finite(each.get("top1")) for name, each in measured.items()}),
        intervals=_known({name: _pair(each.get("interval")) for name, each in measured.items()}),
        images=_known({name: _whole(each.get("test_images")) for name, each in measured.items()}),
        versions=_known({name: _whole(each.get("version")) for name, each in measured.items()}),
        baselines={
            line(network): _known({line(k): finite(share) for k, share in entries(shares).items()})
            for network, shares in entries(run.get("baselines")).items()
        },
        std_sqrt_d=finite(run.get("std_sqrt_d")),
        effective_rank=finite(run.get("effective_rank")),
        loss=finite(run.get("loss")),
        steps=_whole(run.get("steps")),
        seconds=finite(run.get("seconds")),
        identity=_text(run.get("identity")),
    )


def _metrics(arms: list[ReportArm], asked: list[str]) -> list[str]:
    """Figures in the order in which the study asks for their protocols."""
    own = (key for arm in arms for run in arm.runs for key in run.top1)
    known = dict.fromkeys([*(key for arm in arms for key in arm.metrics), *own])

    def place(key: str) -> int:
        name = key.partition(" ")[0]
        words = [spec.rpartition("/")[2].partition(":")[0] for spec in asked]
        exact = asked.index(key) if key in asked else None
        if exact is not None:
            return exact
        return words.index(name) if name in words else len(words)

    return sorted(known, key=place)


def _figure(value: Any) -> SeedMean | None:
    mean = finite(entries(value).get("mean"))
    if mean is None:
        return None
    return SeedMean(mean, finite(value.get("std")), _whole(value.get("n")))


def _difference(value: Any) -> BaseDifference | None:
    mean = finite(entries(value).get("mean"))
    if mean is None:
        return None
    low, high = finite(value.get("low")), finite(value.get("high"))
    return BaseDifference(mean, low, high, _whole(value.get("n")))


def _by_name(value: Any, read: Callable[[Any], _T | None]) -> dict[str, _T]:
    return _known({line(name): read(each) for name, each in entries(value).items()})


def _known(found: Mapping[str, _T | None]) -> dict[str, _T]:
    return {name: each for name, each in found.items() if each is not None}


def _not_run(each: dict[str, Any]) -> tuple[str, int | None, str]:
    return line(each.get("arm") or ""), _whole(each.get("seed")), line(each.get("why") or "")


def _provenance(found: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of (what, value); a bare value is a group of one without a name for it."""
    groups = []
    for name, value in found.items():
        pairs: list[tuple[Any, Any]] = (
            list(value.items()) if isinstance(value, dict) else [("", value)]
        )
        rows = [(line(key), line(compact(each))) for key, each in pairs if each is not None]
        groups.append((line(name), rows))
    return [group for group in groups if group[1]]


def _paragraphs(value: Any) -> str:
    found = [line(part) for part in clean(value or "").split("\n\n")]
    return "\n\n".join(part for part in found if part)


def _pair(value: Any) -> tuple[float, float] | None:
    found = [finite(each) for each in items(value)]
    if len(found) != 2 or found[0] is None or found[1] is None:
        return None
    return found[0], found[1]


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return line(value) if isinstance(value, str) and value.strip() else None


def _first(value: int | None, other: int) -> int:
    return other if value is None else value
