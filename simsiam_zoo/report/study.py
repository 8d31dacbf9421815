"""A study as the report's files show it: `results.json` with clean text and finite numbers.

A study that is still running lacks figures, a failed arm has none, images may have no labels: what
is missing is None here, or not in a table.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from simsiam_zoo.charts.drawing import clean
from simsiam_zoo.report.pages import compact, line

DONE, RUNNING, FAILED = "done", "running", "failed"

_LONGEST = 4000  # characters of an error: its end says what happened


Compact = Annotated[str, BeforeValidator(compact)]
"""A recipe's value in one line."""


class SeedMean(BaseModel, frozen=True):
    """A mean over seeds, with `std` of several."""

    mean: float
    std: float | None = None
    n: int = 0


class Difference(SeedMean, frozen=True):
    """From the base, as `studies.statistics.paired_difference` has it."""

    low: float | None = None
    high: float | None = None
    p: float | None = None
    holm_p: float | None = None
    holm_arms: int | None = None
    detectable: float | None = None
    seeds_for: dict[str, int] | None = None


class Measured(BaseModel, frozen=True):
    """One protocol's top-1 of a run, as a share, with its interval from the test images alone."""

    top1: float | None
    interval: tuple[float, float] | None
    test_images: int
    version: int
    measured_on: str = "test"


class ArmRun(BaseModel, frozen=True):
    """One arm with one seed. `baselines`: share by network that was not trained, and protocol."""

    seed: int = 0
    folder: str = ""
    state: str = ""
    error: str | None = None
    exit_code: int | None = None
    verdict: str | None = None
    reason: str | None = None
    metrics: dict[str, Measured] = {}
    baselines: dict[str, dict[str, float]] = {}
    std_sqrt_d: float | None = None
    effective_rank: float | None = None
    loss: float | None = None
    steps: int | None = None
    seconds: float | None = None
    identity: str | None = None


class Candidate(BaseModel, frozen=True):
    """An arm with values that may be chosen for it. `top1`: the share by which it is chosen;
    `stopped`: the epoch after which halving stopped it, and its share there.
    """

    values: dict[str, Compact]
    top1: float | None = None
    stopped: tuple[int, float] | None = None
    runs: list[ArmRun] = []

    @property
    def mark(self) -> str | None:
        """The seeds' verdict, or `mixed`."""
        verdicts = {run.verdict for run in self.runs if run.verdict}
        return next(iter(verdicts)) if len(verdicts) == 1 else "mixed" if verdicts else None


class ReportArm(BaseModel, frozen=True):
    """What was substituted, and what came of it.

    `same_as`: label of the arm that it equals, or `base`: that is run in its place, and has the
    `shown_runs`. `difference`: from the base, paired by seed, with its 95 % t-interval. `at_edge`:
    the keys of `chosen` whose value is the smallest or the largest of the candidates'.
    """

    number: int = 0
    name: str = ""
    label: str = ""
    part: str | None = None
    is_base: bool = False
    same_as: str | None = None
    substitution: dict[str, Compact] = {}
    differences: list[tuple[str, Compact, Compact]] = []
    changes: list[float] = []
    expect: list[str] | None = None
    paper: float | None = None
    warnings: list[str] = []
    candidates: list[Candidate] = []
    chosen: dict[str, Compact] = {}
    at_edge: list[str] = []
    runs: list[ArmRun] = []
    shown_runs: list[ArmRun] = []
    done: int = 0
    asked: int = 0
    metrics: dict[str, SeedMean | None] = {}
    difference: dict[str, Difference | None] = {}
    std_sqrt_d: SeedMean | None = None
    effective_rank: SeedMean | None = None
    verdicts: dict[str, int] = {}
    as_expected: bool | None = None

    @property
    def substituted(self) -> str:
        """`gradient = none; from epoch 8 on: loss mse`, the substitutions in one line."""
        return "; ".join(
            value if path == "change" else f"{path} = {value}"
            for path, value in self.substitution.items()
        )

    @property
    def states(self) -> dict[str, int]:
        """How many runs are in each state."""
        found = [run.state for run in self.runs]
        return {state: found.count(state) for state in dict.fromkeys(found)}

    @property
    def verdict(self) -> str:
        """The seeds' verdict; how many have which where they differ; empty where there is none."""
        if len(self.verdicts) == 1:
            return next(iter(self.verdicts))
        return ", ".join(f"{n} {name}" for name, n in self.verdicts.items())

    @property
    def mark(self) -> str | None:
        """The arm's mark: its verdict, or `mixed`."""
        return "mixed" if len(self.verdicts) > 1 else self.verdict or None

    def baselines(self, metric: str) -> dict[str, float]:
        """Mean top-1 over seeds of each network that was not trained."""
        shares: dict[str, list[float]] = {}
        for run in self.shown_runs:
            for network, by_metric in run.baselines.items():
                if metric in by_metric:
                    shares.setdefault(network, []).append(by_metric[metric])
        return {network: sum(each) / len(each) for network, each in shares.items()}


class StudyView(BaseModel, frozen=True):
    """A whole study. `protocols`: as the study asks for them."""

    title: str
    description: str
    study: str
    preset: str
    protocols: list[str] = Field(alias="metrics")
    seeds: list[int]
    threads: int
    tune: dict[str, Any] | None = None
    arms: list[ReportArm]
    stale: list[str]
    not_run: list[dict[str, Any]]
    notes: list[str]
    provenance: list[tuple[str, list[tuple[str, str]]]]  # groups of (what, value)

    @cached_property
    def metrics(self) -> list[str]:
        """The measured protocols' own texts, in the order in which the study asks for them."""
        found = (name for arm in self.arms for name in arm.metrics)
        running = (name for _, run in self.runs for name in run.metrics)
        asked = [spec.rpartition("/")[2].partition(":")[0] for spec in self.protocols]

        def rank(name: str) -> int:
            word = name.partition(" ")[0]
            return asked.index(word) if word in asked else len(asked)

        return sorted(dict.fromkeys([*found, *running]), key=rank)

    @property
    def main(self) -> str | None:
        """The main metric."""
        return self.metrics[0] if self.metrics else None

    @property
    def base(self) -> ReportArm | None:
        """The arm that the others are compared with."""
        return next((arm for arm in self.arms if arm.is_base), None)

    @property
    def runs(self) -> list[tuple[ReportArm, ArmRun]]:
        """Every run with its arm."""
        return [(arm, run) for arm in self.arms for run in arm.runs]


def read_results(results: dict[str, Any]) -> StudyView:
    """The study of which `collect_results` gave the results, ready to be shown."""
    study = _cleaned(results)
    by_name = {arm["name"]: arm for arm in study["arms"]}
    arms = [_arm(number, arm, by_name) for number, arm in enumerate(study["arms"])]
    provenance = []
    for name, found in study["provenance"].items():
        pairs = found.items() if isinstance(found, dict) else [("", found)]
        known = [(key, compact(value)) for key, value in pairs if value is not None]
        provenance += [(name, known)] if known else []
    return StudyView.model_validate({**study, "arms": arms, "provenance": provenance})


def _cleaned(value: Any, key: str = "") -> Any:
    """Text on one line without control characters; figures that are not finite as None."""
    if isinstance(value, dict):
        if isinstance(mean := value.get("mean"), float) and not math.isfinite(mean):
            return None
        return {line(name): _cleaned(each, name) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(each, key) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not isinstance(value, str):
        return value
    if key == "error":
        text = clean(value).strip()
        return text if len(text) <= _LONGEST else "[…] " + text[-_LONGEST:]
    if key == "description":
        return "\n\n".join(line(part) for part in clean(value).split("\n\n"))
    return line(value)


def _arm(number: int, arm: dict[str, Any], by_name: dict[str, Any]) -> dict[str, Any]:
    """The arm with its summary's entries; one that equals another has that one's figures."""
    original = by_name.get(arm["same_as"], arm)
    shown = {**arm["summary"], **arm, "number": number, "shown_runs": original["runs"]}
    shown["chosen"] = arm.get("chosen") or {}
    shown["changes"] = [
        change["epoch"]
        for path, _, own in arm["differences"]
        for change in (own if path == "change" and isinstance(own, list) else ())
    ]
    if arm["same_as"] is not None:
        shown["same_as"] = "base" if original["is_base"] else original["label"]
    if original["is_base"]:
        shown["difference"] = {}
    return shown
