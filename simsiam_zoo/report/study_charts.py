"""The charts of a study: curves of its runs, which may still be written, and a dot for each arm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simsiam_zoo.charts.dots import Dot, DotPlot
from simsiam_zoo.charts.drawing import dot_sheet, line_sheet
from simsiam_zoo.charts.lines import Chart, Point, Series, make_chart, steps_per_epoch, thin
from simsiam_zoo.metrics import LOSS, STD, TOP1, Metric, finite, read_rows
from simsiam_zoo.report.pages import line, percent
from simsiam_zoo.report.study import ArmRun, ReportArm, StudyView
from simsiam_zoo.report.tuned import line_styles, sensitivity

SHOWN = (LOSS, STD, TOP1)
"""As in the paper's figure 2."""

PLOTS = {
    "top1.svg": "Top-1 of each arm",
    "sensitivity.svg": "Validation top-1 of each arm over what was tuned",
    "figure2.svg": "Gradient policies, as in the paper's figure 2",
    "curves.svg": "Curves of loss, std × √d and top-1",
}
"""File → what it shows, in the report's order."""

_POINTS = 30_000
"""In a chart's lines together: the page of 40 arms with 5 seeds stays below a few megabytes."""


@dataclass(frozen=True)
class Curve:
    """One metric of one run against epochs, from a column of its metrics.jsonl.

    `arm`: its number. `seed`: None where it is the mean over the arm's seeds.
    """

    arm: int
    seed: int | None
    points: list[Point]
    column: str


Curves = Mapping[str, list[Curve]]
"""By the metric's key."""


@dataclass(frozen=True)
class LegendKey:
    """How an arm's line is drawn, and what it is called beside it."""

    arm: int
    style: str
    label: str


def read_curves(study: StudyView, folder: Path) -> dict[str, list[Curve]]:
    """Loss, std and top-1 of every run that wrote some: each arm's seeds and then their mean."""
    found: dict[str, list[Curve]] = {metric.key: [] for metric in SHOWN}
    for arm in study.arms:
        read = {run.seed: _read_run(folder, run) for run in arm.runs}
        per_epoch = steps_per_epoch(row for rows in read.values() for row in rows)
        for metric in SHOWN:
            columns = metric.columns(row for rows in read.values() for row in rows)
            if columns:
                curves = _curves(arm, read, columns[0], per_epoch)
                found[metric.key] += [curve for curve in curves if curve.points]
    return found


def rows_by_step(path: Path) -> list[dict[str, Any]]:
    """Rows that have a step."""
    return [row for row in read_rows(path) if (finite(row.get("step")) or 0) > 0]


def curve_charts(study: StudyView, curves: Curves, keys: Sequence[LegendKey]) -> list[Chart]:
    """Charts of loss, std and top-1 of these arms; a metric without curves has none.

    Diverged arms do not stretch the axis, and the base lies on top.
    """
    styles = {key.arm: key.style for key in keys}
    chosen = {m: [c for c in curves[m.key] if c.arm in styles] for m in SHOWN}
    end = max((c.points[-1][0] for each in chosen.values() for c in each), default=1.0)
    return [_chart(study, metric, each, styles, end) for metric, each in chosen.items() if each]


def thinned(curves: list[Curve]) -> list[list[Point]]:
    """The points that are drawn: the more curves, the fewer of each."""
    buckets = max(15, min(120, _POINTS // (2 * len(curves))))
    return [thin(curve.points, buckets) for curve in curves]


def legend(study: StudyView, curves: Curves) -> list[LegendKey]:
    """Style and label of each arm with curves; styles repeat after COLORS x DASHES arms."""
    drawn = {curve.arm for each in curves.values() for curve in each}
    styles = line_styles(study)
    arms = [arm for arm in study.arms if arm.number in drawn]
    return [LegendKey(arm.number, styles.get(arm.number, "base"), arm.label) for arm in arms]


def figure_2(study: StudyView, curves: Curves) -> list[LegendKey]:
    """A figure like the paper's figure 2: the base, and the arms with another gradient policy."""
    keys = {key.arm: key for key in legend(study, curves)}
    base = study.base
    others = [a for a in study.arms if _of_gradient(a) and not a.is_base and a.number in keys]
    if not others or base is None or base.number not in keys:
        return []
    return [keys[arm.number] for arm in (base, *others)]


def dot_plot(study: StudyView, metric: str) -> DotPlot:
    """A row for each arm."""
    return DotPlot.scaled(metric, [_dot(arm, metric) for arm in study.arms])


def plot_files(study: StudyView, curves: Curves) -> dict[str, str]:
    """Name → SVG of what there is to draw; names are among `PLOTS`."""
    files = {} if study.main is None else {"top1.svg": dot_sheet(dot_plot(study, study.main))}
    drawn = {"figure2.svg": figure_2(study, curves), "curves.svg": legend(study, curves)}
    if chart := sensitivity(study):
        lines = [(each.style, each.name) for each in chart.lines]
        files["sensitivity.svg"] = line_sheet("", [chart], lines)
    for name, keys in drawn.items():
        if keys:
            charts = curve_charts(study, curves, keys)
            files[name] = line_sheet("", charts, [(key.style, key.label) for key in keys])
    return files


def _read_run(study: Path, run: ArmRun) -> list[dict[str, Any]]:
    """The rows of a run, if its folder lies in the study's."""
    folder = study / run.folder
    inside = bool(run.folder) and folder.resolve().is_relative_to(study.resolve())
    return rows_by_step(folder / "metrics.jsonl") if inside else []


def _curves(
    arm: ReportArm, read: Mapping[int, list[dict[str, Any]]], column: str, per_epoch: float
) -> list[Curve]:
    """Of each seed, and of several their mean at the steps that all of them have."""
    found: dict[int | None, dict[float, float]] = {}
    for seed, rows in read.items():
        values = {row["step"]: finite(row.get(column)) for row in rows if column in row}
        found[seed] = {step: value for step, value in values.items() if value is not None}
    known = [values for values in found.values() if values]
    if len(known) > 1:
        shared = sorted(set.intersection(*(set(values) for values in known)))
        found[None] = {s: math.fsum(each[s] for each in known) / len(known) for s in shared}
    return [
        Curve(arm.number, seed, [(s / per_epoch, y) for s, y in values.items()], line(column))
        for seed, values in found.items()
    ]


def _of_gradient(arm: ReportArm) -> bool:
    """Whether it replaces the gradient policy or a setting of it."""
    return "gradient" in {arm.part, *(path.partition(".")[0] for path in arm.substitution)}


def _chart(
    study: StudyView, metric: Metric, curves: list[Curve], styles: dict[int, str], end: float
) -> Chart:
    curves = sorted(curves, key=lambda c: (study.arms[c.arm].is_base, -c.arm))  # on top is last
    lines, leading = [], []
    for curve, points in zip(curves, thinned(curves), strict=True):
        arm = study.arms[curve.arm]
        alone = sum(each.arm == curve.arm for each in curves) == 1
        weight = "mean" if curve.seed is None else "alone" if alone else "seed"
        name = f"{arm.label}, {'mean' if curve.seed is None else f'seed {curve.seed}'}"
        drawn = [(x, metric.scale * y) for x, y in points]
        label = "" if weight == "seed" else arm.label
        lines.append(Series(drawn, styles[curve.arm], name, str(curve.arm), weight, label))
        leading += [] if "diverged" in arm.verdicts else [lines[-1]]
    protocol = metric.member(curves[0].column)
    base = study.base.baselines(protocol) if study.base and metric.family else {}
    chart = make_chart(
        metric.label,
        metric.note or protocol,
        lines,
        end,
        cover=(0.0, 1.0) if metric is STD else (),
        leading=leading,
        levels=[(metric.scale * share, network) for network, share in base.items()],
    )
    marks = _marks(study, {curve.arm for curve in curves}, end)
    return replace(chart, marks=marks, marks_told=False)  # the legend's labels say what changes


def _marks(study: StudyView, drawn: set[int], end: float) -> list[tuple[float, str]]:
    """The epochs at which something changes in the middle of a run, and in which arms."""
    arms = [arm for arm in study.arms if arm.number in drawn]
    epochs = sorted({epoch for arm in arms for epoch in arm.changes if epoch < end})
    return [(each, "; ".join(a.label for a in arms if each in a.changes)) for each in epochs]


def _dot(arm: ReportArm, metric: str) -> Dot:
    found = arm.metrics.get(metric)
    measured = [(run, run.metrics[metric]) for run in arm.shown_runs if metric in run.metrics]
    seeds = [(each.top1, run.verdict) for run, each in measured if each.top1 is not None]
    baselines = arm.baselines(metric)
    if found is None:
        states = arm.states
        each = states if len(states) < 2 else (f"{n} {state}" for state, n in states.items())
        text = arm.verdict or ", ".join(each) or "not run"
        return Dot(arm.label, arm.is_base, text, None, None, seeds=seeds, baselines=baselines)
    bar, of = None, "seeds"
    if found.std is not None:
        bar = (found.mean - found.std, found.mean + found.std)
    elif len(measured) == 1:
        bar, of = measured[0][1].interval, "images"
    text, several = percent(found.mean, found.std), seeds if len(seeds) > 1 else []
    return Dot(arm.label, arm.is_base, text, found.mean, arm.mark, bar, of, several, baselines)
