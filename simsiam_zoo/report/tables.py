"""The report's two tables, for all formats: arms and runs."""

from __future__ import annotations

from dataclasses import dataclass

from simsiam_zoo.report.study import DONE, ArmRun, ReportArm, SeedMean, StudyView
from simsiam_zoo.report.text import MISSING, NARROW, count, fixed, plus_minus, points
from simsiam_zoo.runtime.progress import duration

STD_TITLE = f"std{NARROW}×{NARROW}√d"  # in one piece: a column of figures is narrow


@dataclass(frozen=True)
class Column:
    """A column's head: `group` spans neighbours that share it; `note` is small print."""

    title: str
    group: str = ""
    note: str = ""
    number: bool = True


@dataclass(frozen=True)
class Cell:
    """One cell of a table: its text, small print below it, a verdict's mark before it.

    `sort`: what rows are sorted by; None (a missing value) comes last.
    """

    text: str = MISSING
    note: str = ""
    sort: float | str | None = None
    verdict: str | None = None


Table = tuple[list[Column], list[list[Cell]]]
"""Heads and rows; the first column names the row."""


def arm_table(study: StudyView) -> Table:
    """A row for each arm."""
    columns = [
        Column("Arm", number=False),
        Column("Substituted", number=False),
        Column("Seeds", note="done"),
    ]
    for metric in study.metrics:
        note = _measured(study, metric)
        columns += [Column("Top‑1, %", metric, note), Column("From base", metric, note)]
    columns += [
        Column(STD_TITLE, note="of z/|z|"),
        Column("Effective rank", note="of z"),
        Column("Verdict", number=False),
        Column("Expectation", number=False),
        Column("Paper, %"),
    ]
    return columns, [_arm_row(study, arm) for arm in study.arms]


def run_table(study: StudyView) -> Table:
    """A row for each run."""
    columns = [
        Column("Arm", number=False),
        Column("Seed"),
        Column("State", number=False),
        *(Column(f"{metric}, %") for metric in study.metrics),
        Column("Loss"),
        Column(STD_TITLE),
        Column("Effective rank"),
        Column("Verdict and evidence", number=False),
        Column("Steps"),
        Column("Time"),
    ]
    return columns, [_run_row(study, arm, run) for arm, run in study.runs]


def _measured(study: StudyView, metric: str) -> str:
    """`version 2, 1,000 test images`."""
    found = [run.metrics[metric] for _, run in study.runs if metric in run.metrics]
    if not found:
        return ""
    versions = sorted({each.version for each in found})
    images = [f"{number:,}" for number in sorted({each.test_images for each in found})]
    version = " and ".join(map(str, versions))
    return f"version {version}, {' or '.join(images)} test images"


def _arm_row(study: StudyView, arm: ReportArm) -> list[Cell]:
    row = [
        Cell(arm.label, "the base" if arm.is_base else "", sort=arm.label),
        Cell(arm.substituted or MISSING, sort=arm.substituted or None),
        _seeds(arm),
    ]
    for metric in study.metrics:
        row += [_figure(arm.metrics.get(metric), 1, arm, scale=100), _difference(arm, metric)]
    return [
        *row,
        _figure(arm.std_sqrt_d, 2, arm),
        _figure(arm.effective_rank, 1, arm),
        Cell(arm.verdict or MISSING, sort=arm.verdict or None, verdict=arm.mark),
        _expectation(arm),
        Cell() if arm.paper is None else Cell(f"{arm.paper:g}", sort=arm.paper),
    ]


def _seeds(arm: ReportArm) -> Cell:
    if not arm.shown_runs:
        return Cell(note="not run")
    others = [f"{n} {state}" for state, n in arm.states.items() if state != DONE]
    note = f"same as {arm.same_as}" if arm.same_as else ", ".join(others)
    return Cell(f"{arm.done} of {arm.asked}", note, arm.done)


def _figure(figure: SeedMean | None, digits: int, arm: ReportArm, scale: float = 1.0) -> Cell:
    if figure is None:
        return Cell()
    note = count(figure.n, "seed") if figure.n < arm.done else ""
    return Cell(plus_minus(figure.mean, figure.std, digits, scale), note, figure.mean)


def _difference(arm: ReportArm, metric: str) -> Cell:
    found = arm.difference.get(metric)
    if found is None:
        return Cell()
    note = count(found.n, "seed")
    if found.low is not None and found.high is not None:
        note = f"{points(found.low)} to {points(found.high)}"
    return Cell(points(found.mean), note, found.mean)


def _expectation(arm: ReportArm) -> Cell:
    if not arm.expect:
        return Cell()
    text = {None: "open", True: "as expected", False: "not as expected"}[arm.as_expected]
    sign = {None: "", True: "✓ ", False: "✗ "}[arm.as_expected]
    return Cell(f"{sign}{text}", f"expected {' or '.join(arm.expect)}", text)


def _run_row(study: StudyView, arm: ReportArm, run: ArmRun) -> list[Cell]:
    row = [Cell(arm.label), Cell(str(run.seed))]
    row.append(Cell(run.state, f"exit code {run.exit_code}" if run.exit_code else ""))
    for metric in study.metrics:
        found = run.metrics.get(metric)
        ends = [] if found is None or found.interval is None else found.interval
        note = " to ".join(fixed(100 * end, 1) for end in ends)
        row.append(_number(None if found is None else found.top1, 1, 100, note))
    return [
        *row,
        _number(run.loss, 3),
        _number(run.std_sqrt_d, 2),
        _number(run.effective_rank, 1),
        Cell(run.verdict or MISSING, run.reason or "", verdict=run.verdict),
        Cell() if run.steps is None else Cell(f"{run.steps:,}"),
        Cell() if run.seconds is None else Cell(duration(run.seconds)),
    ]


def _number(value: float | None, digits: int, scale: float = 1.0, note: str = "") -> Cell:
    return Cell() if value is None else Cell(fixed(scale * value, digits), note)
