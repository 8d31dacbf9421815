"""A study as the report's files show it: text is clean, numbers are finite or None.

A study that is still running lacks figures, a failed arm has none, images may have no labels: here
is the one place where that is dealt with.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

from simsiam_zoo.report.text import clean, compact, entries, finite, items, line, tail

DONE, RUNNING, WAITING, FAILED = "done", "running", "waiting", "failed"


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _pair(value: Any) -> tuple[float, float] | None:
    found = [finite(each) for each in items(value)]
    if len(found) != 2 or found[0] is None or found[1] is None:
        return None
    return found[0], found[1]


def _paragraphs(value: Any) -> str:
    found = [line(part) for part in clean(value or "").split("\n\n")]
    return "\n\n".join(part for part in found if part)


def _triples(value: Any) -> list[tuple[str, str, str]]:
    each = [items(entry) for entry in items(value)]
    return [(line(e[0]), line(compact(e[1])), line(compact(e[2]))) for e in each if len(e) == 3]


def _provenance(value: Any) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of (what, value); a bare value is a group of one without a name for it."""
    groups = []
    for name, found in entries(value).items():
        pairs = found.items() if isinstance(found, dict) else [("", found)]
        rows = [(line(key), line(compact(each))) for key, each in pairs if each is not None]
        groups.append((line(name), rows))
    return [group for group in groups if group[1]]


def _has_mean(value: Any) -> bool:
    return finite(entries(value).get("mean")) is not None


def _text(value: Any) -> str | None:
    return line(value) if isinstance(value, str) and value.strip() else None


# How a value of `results.json` is read, whatever it is; of a missing one the field's default holds.
Line = Annotated[str, PlainValidator(line)]
ValueText = Annotated[str, PlainValidator(lambda value: line(compact(value)))]
MaybeText = Annotated[str | None, PlainValidator(_text)]
Number = Annotated[float | None, PlainValidator(finite)]
Whole = Annotated[int | None, PlainValidator(_whole)]
Lines = Annotated[list[Line], BeforeValidator(items)]
Shares = Annotated[
    dict[Line, float],
    BeforeValidator(lambda v: {k: s for k, s in entries(v).items() if finite(s) is not None}),
]


class _Lenient(BaseModel):
    """Reads what is there. Unknown keys are ignored; None counts as missing."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _stated(cls, value: Any) -> dict[str, Any]:
        return {key: each for key, each in entries(value).items() if each is not None}


class SeedMean(_Lenient):
    """A mean over seeds; `std` is None for one seed."""

    mean: Annotated[float, PlainValidator(finite)]
    std: Number = None
    n: Whole = None


class BaseDifference(_Lenient):
    """Arm minus base, paired by seed, with its 95 % t-interval where there is one."""

    mean: Annotated[float, PlainValidator(finite)]
    low: Number = None
    high: Number = None
    n: Whole = None


def _known(value: Any) -> dict[str, Any]:
    return {name: each for name, each in entries(value).items() if _has_mean(each)}


MaybeMean = Annotated[
    SeedMean | None, BeforeValidator(lambda value: value if _has_mean(value) else None)
]


class Measured(_Lenient):
    """One protocol's top-1 of a run, as a share, with its interval from the test images alone."""

    top1: Number = None
    interval: Annotated[tuple[float, float] | None, PlainValidator(_pair)] = None
    test_images: Whole = None
    version: Whole = None


class ArmRun(_Lenient):
    """One arm with one seed. `baselines`: share by network that was not trained, and protocol."""

    seed: Annotated[int, PlainValidator(lambda value: _whole(value) or 0)] = 0
    folder: Annotated[str, PlainValidator(lambda v: v if isinstance(v, str) else "")] = ""
    state: Line = WAITING
    error: Annotated[
        str | None, PlainValidator(lambda value: tail(clean(value)).strip() if value else None)
    ] = None
    exit_code: Whole = None
    verdict: MaybeText = None
    reason: MaybeText = None
    metrics: Annotated[dict[Line, Measured], BeforeValidator(entries)] = {}
    baselines: Annotated[dict[Line, Shares], BeforeValidator(entries)] = {}
    std_sqrt_d: Number = None
    effective_rank: Number = None
    loss: Number = None
    steps: Whole = None
    seconds: Number = None
    identity: MaybeText = None

    @cached_property
    def top1(self) -> dict[str, float]:
        """Share by protocol."""
        return {name: each.top1 for name, each in self.metrics.items() if each.top1 is not None}

    def interval(self, metric: str) -> tuple[float, float] | None:
        """Of a share, from the test images alone."""
        return self.metrics[metric].interval if metric in self.metrics else None


class ReportArm(_Lenient):
    """What was substituted, and what came of it.

    Args:
        same_as: label of the arm that it equals, or `base`: that is run in its place.
        runs: its own.
        shown_runs: those whose figures it has: its own, or those of the arm that it equals.
    """

    number: int = 0
    name: Line = ""
    label: Line = ""
    part: MaybeText = None
    is_base: Annotated[bool, PlainValidator(lambda value: value is True)] = False
    same_as: MaybeText = None
    substitution: Annotated[dict[Line, ValueText], BeforeValidator(entries)] = {}
    differences: Annotated[list[tuple[str, str, str]], PlainValidator(_triples)] = []
    expect: Lines = []
    paper: Number = None
    warnings: Lines = []
    runs: Annotated[list[ArmRun], BeforeValidator(items)] = []
    shown_runs: list[ArmRun] = []
    done: Whole = None
    asked: Whole = None
    metrics: Annotated[dict[Line, SeedMean], BeforeValidator(_known)] = {}
    difference: Annotated[dict[Line, BaseDifference], BeforeValidator(_known)] = {}
    std_sqrt_d: MaybeMean = None
    effective_rank: MaybeMean = None
    loss: MaybeMean = None
    verdicts: Annotated[
        dict[Line, Annotated[int, PlainValidator(lambda value: _whole(value) or 0)]],
        BeforeValidator(entries),
    ] = {}
    verdict: MaybeText = None
    as_expected: Annotated[
        bool | None, PlainValidator(lambda v: v if isinstance(v, bool) else None)
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _summarised(cls, value: Any) -> dict[str, Any]:
        return {**entries(entries(value).get("summary")), **entries(value)}

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


class NotRun(_Lenient):
    """An arm, or one seed of it, that was not run, and why."""

    arm: Line = ""
    seed: Whole = None
    why: Line = ""


class StudyView(_Lenient):
    """A whole study."""

    title: Line = ""
    description: Annotated[str, PlainValidator(_paragraphs)] = ""
    study: Line = ""
    preset: Line = ""
    seeds: Annotated[
        list[int], PlainValidator(lambda value: [s for s in items(value) if isinstance(s, int)])
    ] = []
    threads: Whole = None
    arms: Annotated[list[ReportArm], BeforeValidator(items)] = []
    protocols: Lines = Field([], alias="metrics")
    stale: Lines = []
    not_run: Annotated[list[NotRun], BeforeValidator(items)] = []
    notes: Lines = []
    provenance: Annotated[list[tuple[str, list[tuple[str, str]]]], PlainValidator(_provenance)] = []

    @cached_property
    def metrics(self) -> list[str]:
        """The figures' own protocol texts, in the order in which the study asks for them."""
        own = (key for _, run in self.runs for key in run.top1)
        known = dict.fromkeys([*(key for arm in self.arms for key in arm.metrics), *own])
        words = [spec.rpartition("/")[2].partition(":")[0] for spec in self.protocols]

        def rank(key: str) -> int:
            if key in self.protocols:
                return self.protocols.index(key)
            name = key.partition(" ")[0]
            return words.index(name) if name in words else len(words)

        return sorted(known, key=rank)

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
        found = (run.metrics[metric].test_images for _, run in self.runs if metric in run.metrics)
        return sorted({number for number in found if number is not None})

    def versions(self, metric: str) -> list[int]:
        """The versions of the metric's protocol; one, as a rule."""
        found = (run.metrics[metric].version for _, run in self.runs if metric in run.metrics)
        return sorted({number for number in found if number is not None})


def read_results(results: dict[str, Any]) -> StudyView:
    """Read what `results.json` holds; unknown keys are left alone, missing figures are None."""
    study = StudyView.model_validate(results)
    arms = [_completed(number, arm) for number, arm in enumerate(study.arms)]
    arms = [_with_figures(arm, arms) for arm in arms]
    return study.model_copy(update={"arms": arms, "title": study.title or study.study or "Study"})


def _completed(number: int, arm: ReportArm) -> ReportArm:
    name = arm.name or f"arm {number + 1}"
    done = sum(run.state == DONE for run in arm.runs) if arm.done is None else arm.done
    return arm.model_copy(
        update={
            "number": number,
            "name": name,
            "label": arm.label or name,
            "shown_runs": arm.runs,
            "done": done,
            "asked": len(arm.runs) if arm.asked is None else arm.asked,
        }
    )


def _with_figures(arm: ReportArm, arms: list[ReportArm]) -> ReportArm:
    """An arm that equals another one is not run: it has the figures of that one's runs."""
    if arm.same_as is None:
        return arm
    equal = (o for o in arms if o.name == arm.same_as or (arm.same_as == "base" and o.is_base))
    original = next(equal, arm)
    if original is arm:
        return arm
    shared = (
        "done asked metrics difference verdicts verdict std_sqrt_d effective_rank loss shown_runs"
    )
    update = {name: getattr(original, name) for name in shared.split()}
    own = {"same_as": "base" if original.is_base else original.label, "runs": []}
    return arm.model_copy(update=update | own | ({"difference": {}} if original.is_base else {}))


def run_folder(study: Path, run: ArmRun) -> Path | None:
    """The run's folder, if it lies in the study's."""
    folder = study / run.folder
    try:
        inside = bool(run.folder) and folder.resolve().is_relative_to(study.resolve())
    except (OSError, ValueError):  # no path at all
        return None
    return folder if inside else None
