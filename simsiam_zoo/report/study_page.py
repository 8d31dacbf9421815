"""`report.html`: a study as one page that opens offline, prints, and fits a phone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from simsiam_zoo.report import answer, text
from simsiam_zoo.report import tables as rows
from simsiam_zoo.report.dots import dot_plots
from simsiam_zoo.report.offline import render_offline
from simsiam_zoo.report.panels import Chart, Trace, draw
from simsiam_zoo.report.study_curves import Curve
from simsiam_zoo.report.study_view import View

COLORS, DASHES = 6, 4
"""An arm's line has one of 6 colours and one of 4 dashes; the base is in the text's colour."""

MARKS = ("learned", "collapsed", "diverged", "undertrained", "undetermined", "mixed")
"""Verdicts with a shape and a colour of their own; any other looks like `undetermined`."""

_OPEN = 24  # rows of recipe differences that need not be folded away


@dataclass(frozen=True)
class Key:
    """How an arm's line is drawn, and what it is called beside it."""

    arm: int
    style: str
    label: str


def render(study: View, curves: Mapping[str, list[Curve]]) -> str:
    """The page.

    Args:
        study: as `reading.view` gives it.
        curves: of its runs, by what is shown.
    """
    drawn = sorted({curve.arm for each in curves.values() for curve in each})
    pair = figure_2(study, drawn)
    return render_offline(
        "simsiam_zoo.report",
        "study",
        study=study,
        progress=answer.progress(study),
        answer=answer.answer(study),
        notes=answer.notes(study),
        warnings=[
            (warning, text.listing([text.quoted(arm) for arm in arms]))
            for warning, arms in answer.warnings(study)
        ],
        columns=rows.arm_columns(study),
        groups=_groups(rows.arm_columns(study)),
        table=list(zip(study.arms, rows.arm_rows(study), strict=True)),
        run_columns=rows.run_columns(study),
        runs=rows.run_rows(study),
        plots=dot_plots(study),
        panels=[(chart, _by_arm(chart)) for chart in draw(study, curves, drawn)],
        keys=_keys(study, drawn),
        styles=styles(study),
        pair=[(chart, _by_arm(chart)) for chart in draw(study, curves, pair)] if pair else [],
        pair_keys=pair_keys(study, pair),
        differing=[arm for arm in study.arms if arm.differences],
        unfolded=sum(len(arm.differences) for arm in study.arms) <= _OPEN,
        failed=[(arm, run) for arm, run in study.runs if run.error],
        not_run=answer.not_run(study),
        time=wall_time(study),
        palette=COLORS * DASHES,
        known_mark=known_mark,
        axis_tick=text.tick,
    )


def known_mark(verdict: str | None) -> str:
    """The mark of a verdict: nothing but one of `MARKS`."""
    return verdict if verdict in MARKS else "undetermined"


def styles(study: View) -> dict[int, str]:
    """Class names by arm: as many arms look different as there are colours times dashes."""
    others = [arm.number for arm in study.arms if not arm.is_base]
    found = {n: f"c{at % COLORS} d{at // COLORS % DASHES}" for at, n in enumerate(others)}
    return found | {arm.number: "base" for arm in study.arms if arm.is_base}


def figure_2(study: View, drawn: list[int]) -> list[int]:
    """The arms of a figure like the paper's figure 2: the base, and those with another gradient."""
    others = [a.number for a in study.arms if a.substitutes("gradient") and a.number in drawn]
    base = study.base
    if not others or base is None or base.number not in drawn:
        return []
    return [base.number, *(number for number in others if number != base.number)]


def pair_keys(study: View, pair: list[int]) -> list[Key]:
    """What the arms of figure 2 are called: by their gradient policies, where these are known."""
    names = {arm.number: arm.label for arm in study.arms}
    for arm in study.arms:
        for path, of_base, own in arm.differences:
            if arm.number in pair and path in ("gradient", "gradient.name"):
                names[arm.number] = f"gradient: {own}"
                names[pair[0]] = f"gradient: {of_base} (base)"
    return [Key(number, styles(study)[number], names[number]) for number in pair]


def wall_time(study: View) -> str:
    """Of all runs together."""
    seconds = [run.seconds for _, run in study.runs if run.seconds is not None]
    return text.duration(sum(seconds)) if seconds else ""


def _keys(study: View, drawn: list[int]) -> list[Key]:
    looks = styles(study)
    return [Key(a.number, looks[a.number], a.label) for a in study.arms if a.number in drawn]


def _by_arm(chart: Chart) -> list[tuple[int, list[Trace]]]:
    """Traces by arm, the base's last: it lies on top."""
    return [(arm, list(own)) for arm, own in groupby(chart.traces, key=lambda t: t.arm)][::-1]


def _groups(columns: list[rows.Column]) -> list[dict[str, Any]]:
    """The head's first row: columns that share a group below one cell."""
    found: list[dict[str, Any]] = []
    for at, column in enumerate(columns):
        if column.group and found and found[-1]["group"] == column.group:
            found[-1]["span"] += 1
        else:
            head = {"group": column.group, "note": column.note, "span": 1}
            found.append(head | {"column": column, "at": at})
    return found
