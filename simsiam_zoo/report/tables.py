"""The report's two tables, for all formats: arms and runs."""

from __future__ import annotations

from dataclasses import dataclass

from simsiam_zoo.report.answer import verdict_text
from simsiam_zoo.report.study import DONE, ArmRun, ReportArm, SeedMean, StudyView
from simsiam_zoo.report.text import (
    MISSING,
    NARROW,
    between,
    count,
    fixed,
    general,
    plus_minus,
    points,
)
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
    """One cell of a table.

    Args:
        text: the value.
        note: small print below it.
        sort: what rows are sorted by; None (a missing value) comes last.
        verdict: the mark that stands before the text.
    """

    text: str
    note: str = ""
    sort: float | str | None = None
    verdict: str | None = None


EMPTY = Cell(MISSING)


def arm_columns(study: StudyView) -> list[Column]:
    """Heads of the table of arms; the first column names the row."""
    columns = [
        Column("Arm", number=False),
        Column("Substituted", number=False),
        Column("Seeds", note="done"),
    ]
    for metric in study.metrics:
        group, note = metric, _measured(study, metric)
        columns.append(Column("Top‑1, %", group, note))
        columns.append(Column("From base", group, note))
    return [
        *columns,
        Column(STD_TITLE, note="of z/|z|"),
        Column("Effective rank", note="of z"),
        Column("Verdict", number=False),
        Column("Expectation", number=False),
        Column("Paper, %"),
    ]


def arm_rows(study: StudyView) -> list[list[Cell]]:
    """A row of cells for each arm, under `arm_columns`."""
    return [_arm_row(study, arm) for arm in study.arms]


def run_columns(study: StudyView) -> list[Column]:
    """Heads of the table of runs."""
    return [
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


def run_rows(study: StudyView) -> list[list[Cell]]:
    """A row of cells for each run, under `run_columns`."""
    return [_run_row(study, arm, run) for arm, run in study.runs]


def _measured(study: StudyView, metric: str) -> str:
    """`version 2, 1,000 test images`."""
    versions, images = study.versions(metric), study.images(metric)
    words = [f"version {' and '.join(map(str, versions))}"] if versions else []
    if images:
        low, high = images[0], images[-1]
        words.append(f"{low:,} test images" if low == high else f"{low:,} to {high:,} test images")
    return ", ".join(words)


def _arm_row(study: StudyView, arm: ReportArm) -> list[Cell]:
    row = [
        Cell(arm.label, "the base" if arm.is_base else "", sort=arm.label),
        Cell(arm.substituted or MISSING, sort=arm.substituted or None),
        _seeds(arm),
    ]
    for metric in study.metrics:
        figure = arm.metrics.get(metric)
        row.append(_figure(figure, 1, arm, scale=100))
        row.append(_difference(arm, metric))
    paper = EMPTY if arm.paper is None else Cell(general(arm.paper), sort=arm.paper)
    return [
        *row,
        _figure(arm.std_sqrt_d, 2, arm),
        _figure(arm.effective_rank, 1, arm),
        Cell(verdict_text(arm) or MISSING, sort=verdict_text(arm) or None, verdict=arm_mark(arm)),
        _expectation(arm),
        paper,
    ]


def arm_mark(arm: ReportArm) -> str | None:
    """The arm's mark: its verdict, or `mixed`."""
    return "mixed" if len(arm.verdicts) > 1 else verdict_text(arm) or None


def _seeds(arm: ReportArm) -> Cell:
    if not arm.shown_runs:
        return Cell(MISSING, "not run")
    if arm.same_as is not None:
        return Cell(f"{arm.done} of {arm.asked}", f"same as {arm.same_as}", arm.done)
    others = [f"{n} {state}" for state, n in arm.states.items() if state != DONE]
    return Cell(f"{arm.done} of {arm.asked}", ", ".join(others), arm.done)


def _figure(figure: SeedMean | None, digits: int, arm: ReportArm, scale: float = 1.0) -> Cell:
    if figure is None:
        return EMPTY
    fewer = figure.n is not None and figure.n < (arm.done or 0)
    note = count(figure.n or 0, "seed") if fewer else ""
    return Cell(plus_minus(figure.mean, figure.std, digits, scale), note, figure.mean)


def _difference(arm: ReportArm, metric: str) -> Cell:
    found = arm.difference.get(metric)
    if found is None or arm.is_base:
        return EMPTY
    interval = between(found.low, found.high)
    note = interval or (count(found.n, "seed") if found.n is not None else "")
    return Cell(points(found.mean), note, found.mean)


def _expectation(arm: ReportArm) -> Cell:
    if not arm.expect:
        return EMPTY
    note = f"expected {' or '.join(arm.expect)}"
    if arm.as_expected is None:
        return Cell("open", note, "open")
    text = "as expected" if arm.as_expected else "not as expected"
    return Cell(f"{'✓' if arm.as_expected else '✗'} {text}", note, text)


def _run_row(study: StudyView, arm: ReportArm, run: ArmRun) -> list[Cell]:
    ended = "" if run.exit_code in (None, 0) else f"exit code {run.exit_code}"
    row = [Cell(arm.label), Cell(str(run.seed)), Cell(run.state, ended)]
    for metric in study.metrics:
        share, interval = run.top1.get(metric), run.interval(metric)
        note = "" if interval is None else " to ".join(fixed(100 * end, 1) for end in interval)
        row.append(EMPTY if share is None else Cell(fixed(100 * share, 1), note))
    return [
        *row,
        _number(run.loss, 3),
        _number(run.std_sqrt_d, 2),
        _number(run.effective_rank, 1),
        Cell(run.verdict or MISSING, run.reason or "", verdict=run.verdict),
        EMPTY if run.steps is None else Cell(f"{run.steps:,}"),
        EMPTY if run.seconds is None else Cell(duration(run.seconds)),
    ]


def _number(value: float | None, digits: int) -> Cell:
    return EMPTY if value is None else Cell(fixed(value, digits))
