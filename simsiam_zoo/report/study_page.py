"""`report.html`: a study as one page that opens offline, prints, and fits a phone."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from simsiam_zoo.charts.lines import COLORS, DASHES, Chart
from simsiam_zoo.charts.plots import known_mark
from simsiam_zoo.report import answer, tables, text
from simsiam_zoo.report.offline import render_offline
from simsiam_zoo.report.study import StudyView
from simsiam_zoo.report.study_charts import Curves, curve_charts, dot_plots, figure_2, legend
from simsiam_zoo.runtime.progress import duration

_OPEN = 24  # rows of recipe differences that need not be folded away


def render_study(study: StudyView, curves: Curves) -> str:
    """The page.

    Args:
        study: as `read_study` gives it.
        curves: of its runs, as `read_curves` gives them.
    """
    drawn = {curve.arm for each in curves.values() for curve in each}
    pair = figure_2(study, drawn)
    keys = legend(study, drawn)
    columns = tables.arm_columns(study)
    return render_offline(
        "study",
        study=study,
        progress=answer.progress(study),
        answer=answer.answer(study),
        notes=answer.notes(study),
        warnings=[
            (warning, text.listing([text.quoted(arm) for arm in arms]))
            for warning, arms in answer.warnings(study)
        ],
        columns=columns,
        groups=_groups(columns),
        table=list(zip(study.arms, tables.arm_rows(study), strict=True)),
        run_columns=tables.run_columns(study),
        runs=tables.run_rows(study),
        plots=dot_plots(study),
        panels=_drawn(curve_charts(study, curves, drawn), "c"),
        keys=keys,
        pair=_drawn(curve_charts(study, curves, {key.arm for key in pair}), "p"),
        pair_keys=pair,
        differing=[arm for arm in study.arms if arm.differences],
        unfolded=sum(len(arm.differences) for arm in study.arms) <= _OPEN,
        failed=[(arm, run) for arm, run in study.runs if run.error],
        not_run=answer.not_run(study),
        time=wall_time(study),
        palette=COLORS * DASHES,
        known_mark=known_mark,
        axis_tick=text.tick,
    )


def _drawn(charts: list[Chart], prefix: str) -> list[tuple[Chart, Markup]]:
    """Charts with their SVG; the prefix keeps ids apart."""
    label = "{} against epochs, a line for each seed of each arm"
    return [
        (chart, Markup(chart.svg(f"{prefix}{n}", label.format(chart.title), "circle")))
        for n, chart in enumerate(charts)
    ]


def wall_time(study: StudyView) -> str:
    """Of all runs together."""
    seconds = [run.seconds for _, run in study.runs if run.seconds is not None]
    return duration(sum(seconds)) if seconds else ""


def _groups(columns: list[tables.Column]) -> list[dict[str, Any]]:
    """The head's first row: columns that share a group below one cell."""
    found: list[dict[str, Any]] = []
    for at, column in enumerate(columns):
        if column.group and found and found[-1]["group"] == column.group:
            found[-1]["span"] += 1
        else:
            head = {"group": column.group, "note": column.note, "span": 1}
            found.append(head | {"column": column, "at": at})
    return found
