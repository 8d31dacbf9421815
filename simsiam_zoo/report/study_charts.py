"""The charts of a study: curves of its runs against epochs, and a dot for each arm.

Runs may still be writing their metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simsiam_zoo.charts.lines import (
    COLORS,
    DASHES,
    Chart,
    Point,
    Series,
    Weight,
    find_ticks,
    make_chart,
    thin,
)
from simsiam_zoo.charts.plots import Bar, Dot, DotPlot, dot_sheet
from simsiam_zoo.charts.sheet import line_sheet
from simsiam_zoo.metrics import LOSS, STD, TOP1, Metric
from simsiam_zoo.report.answer import baselines
from simsiam_zoo.report.study import ReportArm, StudyView, run_folder
from simsiam_zoo.report.tables import arm_mark
from simsiam_zoo.report.text import NARROW, finite, line, percent, plus_minus

SHOWN = (LOSS, STD, TOP1)
"""As in the paper's figure 2."""

PLOTS = {
    "top1.svg": "Top-1 of each arm",
    "figure2.svg": "Gradient policies, as in the paper's figure 2",
    "curves.svg": "Curves of loss, std × √d and top-1",
}
"""File → what it shows, in the report's order."""

_POINTS = 30_000
"""In a chart's lines together: the page of 40 arms with 5 seeds stays below a few megabytes."""

Curves = Mapping[str, list["Curve"]]
"""By the metric's key."""


@dataclass(frozen=True)
class Curve:
    """One metric of one run against epochs.

    Args:
        arm: its number.
        seed: of the run; None where it is the mean over the arm's seeds.
        points: every one that was written.
        steps_per_epoch: by which epochs become steps again.
        column: of metrics.jsonl.
    """

    arm: int
    seed: int | None
    points: list[Point]
    steps_per_epoch: float
    column: str


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
        read = []
        for run in arm.runs:
            path = run_folder(folder, run)
            rows = [] if path is None else read_rows(path / "metrics.jsonl")
            read.append((run.seed, rows, steps_per_epoch(rows)))
        known = [each for _, _, each in read if each is not None]
        for metric in SHOWN:
            own = []
            for seed, rows, per_epoch in read:
                each = per_epoch or (known[0] if known else _within_an_epoch(rows))
                curve = _curve(arm.number, seed, metric, rows, each)
                own += [] if curve is None else [curve]
            mean = _mean(own) if len(own) > 1 else None
            found[metric.key] += own if mean is None else [*own, mean]
    return found


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows that have a step. Incomplete lines are skipped: a run may be writing now."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    rows = []
    for each in lines:
        try:
            row = json.loads(each)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and (finite(row.get("step")) or 0) > 0:
            rows.append(row)
    return rows


def steps_per_epoch(rows: list[dict[str, Any]]) -> float | None:
    """Steps of an epoch: `epoch` counts whole epochs, so the row at an epoch's end tells it.

    None before the first epoch's end.
    """
    whole = [(row["step"], finite(row.get("epoch"))) for row in rows]
    return min((step / epoch for step, epoch in whole if epoch and epoch > 0), default=None)


def curve_charts(study: StudyView, curves: Curves, arms: Collection[int]) -> list[Chart]:
    """Charts of loss, std and top-1 of these arms; a metric without curves has none.

    Diverged arms do not stretch the axis, and the base lies on top.
    """
    chosen = {m: [c for c in curves.get(m.key, []) if c.arm in arms] for m in SHOWN}
    end = max((c.points[-1][0] for each in chosen.values() for c in each), default=1.0)
    return [_chart(study, metric, each, end) for metric, each in chosen.items() if each]


def thinned(curves: list[Curve]) -> list[list[Point]]:
    """The points that are drawn: the more curves, the fewer of each."""
    buckets = max(15, min(120, _POINTS // (2 * len(curves))))
    return [thin(curve.points, buckets) for curve in curves]


def legend(study: StudyView, drawn: Collection[int]) -> list[LegendKey]:
    """Style and label of each drawn arm; styles repeat after COLORS x DASHES arms."""
    others = [arm.number for arm in study.arms if not arm.is_base]
    styles = {n: f"c{at % COLORS} d{at // COLORS % DASHES}" for at, n in enumerate(others)}
    return [
        LegendKey(arm.number, styles.get(arm.number, "base"), arm.label)
        for arm in study.arms
        if arm.number in drawn
    ]


def figure_2(study: StudyView, drawn: Collection[int]) -> list[LegendKey]:
    """A figure like the paper's figure 2: the base, and the arms with another gradient policy.

    They are called by their policies, where these are known.
    """
    others = [a.number for a in study.arms if a.substitutes("gradient") and a.number in drawn]
    base = study.base
    if not others or base is None or base.number not in drawn:
        return []
    pair = [base.number, *(number for number in others if number != base.number)]
    names = {}
    for arm in study.arms:
        for path, of_base, own in arm.differences:
            if arm.number in pair and path in ("gradient", "gradient.name"):
                names[arm.number] = f"gradient: {own}"
                names[base.number] = f"gradient: {of_base} (base)"
    keys = {key.arm: key for key in legend(study, pair)}
    return [LegendKey(n, keys[n].style, names.get(n, keys[n].label)) for n in pair]


def dot_plots(study: StudyView) -> list[DotPlot]:
    """One for each metric that was measured, the main one first."""
    return [_dot_plot(study, metric) for metric in study.metrics]


def plot_files(study: StudyView, curves: Curves) -> dict[str, str]:
    """Name → SVG of what there is to draw; names are among `PLOTS`."""
    drawn = {curve.arm for each in curves.values() for curve in each}
    files = {} if study.main is None else {"top1.svg": dot_sheet(_dot_plot(study, study.main))}
    for name, keys in {
        "figure2.svg": figure_2(study, drawn),
        "curves.svg": legend(study, drawn),
    }.items():
        if keys:
            charts = curve_charts(study, curves, {key.arm for key in keys})
            files[name] = line_sheet("", charts, [(key.style, key.label) for key in keys])
    return files


def _within_an_epoch(rows: list[dict[str, Any]]) -> float:
    return max((float(row["step"]) for row in rows), default=0.0) + 1.0


def _curve(
    arm: int, seed: int, metric: Metric, rows: list[dict[str, Any]], per_epoch: float
) -> Curve | None:
    column = next(iter(metric.columns(rows)), None)
    if column is None:
        return None
    values = ((row["step"] / per_epoch, finite(row.get(column))) for row in rows)
    points = [(epoch, value) for epoch, value in values if value is not None]
    return Curve(arm, seed, points, per_epoch, line(column)) if points else None


def _mean(own: list[Curve]) -> Curve | None:
    """Over seeds, at the steps that all of them have."""
    at = [{round(x * c.steps_per_epoch): y for x, y in c.points} for c in own]
    shared = sorted(set.intersection(*(set(each) for each in at)))
    per_epoch = own[0].steps_per_epoch
    points = [(step / per_epoch, math.fsum(e[step] for e in at) / len(at)) for step in shared]
    return Curve(own[0].arm, None, points, per_epoch, own[0].column) if points else None


def _chart(study: StudyView, metric: Metric, curves: list[Curve], end: float) -> Chart:
    base = None if study.base is None else study.base.number
    curves = sorted(curves, key=lambda curve: (curve.arm == base, -curve.arm))  # on top is last
    styles = {key.arm: key.style for key in legend(study, {curve.arm for curve in curves})}
    wild = {arm.number for arm in study.arms if "diverged" in arm.verdicts}
    lines, leading = [], []
    for curve, points in zip(curves, thinned(curves), strict=True):
        alone = sum(each.arm == curve.arm for each in curves) == 1
        name = "mean" if curve.seed is None else f"seed {curve.seed}"
        weight: Weight = "mean" if curve.seed is None else "alone" if alone else "seed"
        series = Series(points, styles[curve.arm], name, str(curve.arm), weight)
        lines.append(series)
        leading += [] if curve.arm in wild else [series]
    share = metric is TOP1  # told in per cent, as it is in the tables
    return make_chart(
        f"{metric.label}, %" if share else metric.label,
        metric.member(curves[0].column) if share else metric.note,
        lines,
        end,
        cover=(0.0, 1.0) if metric is STD else (),
        leading=leading,
        scale=100.0 if share else 1.0,
    )


def _dot_plot(study: StudyView, metric: str) -> DotPlot:
    rows = [_dot(arm, metric) for arm in study.arms]
    shares = [share for row in rows for share in _extent(row)]
    low, high = min(shares, default=0.0), max(shares, default=1.0)
    room = 0.04 * ((high - low) or 1.0)
    low, high = low - room, high + room
    ticks = [tick for tick in find_ticks(low, high) if low <= tick <= high]
    base = next((row.mean for row in rows if row.is_base), None)
    return DotPlot(metric, rows, low, high, ticks, base)


def _dot(arm: ReportArm, metric: str) -> Dot:
    found = arm.metrics.get(metric)
    known = [(run.top1[metric], run.verdict) for run in arm.shown_runs if metric in run.top1]
    if found is None:
        text = _why(arm)
    elif found.std is None:
        text = percent(found.mean)
    else:
        text = f"{plus_minus(found.mean, found.std, 1, 100)}{NARROW}%"
    return Dot(
        arm.label,
        arm.is_base,
        None if found is None else found.mean,
        arm_mark(arm),
        _bar(arm, metric),
        known if found is None or len(known) > 1 else [],
        baselines(arm, metric),
        text,
    )


def _bar(arm: ReportArm, metric: str) -> Bar | None:
    found = arm.metrics.get(metric)
    if found is None:
        return None
    if found.std is not None:
        return Bar(found.mean - found.std, found.mean + found.std, "seeds")
    known = [run.interval(metric) for run in arm.shown_runs]
    alone = [interval for interval in known if interval is not None]
    return Bar(*alone[0], "images") if len(alone) == 1 else None


def _extent(row: Dot) -> list[float]:
    means = [] if row.mean is None else [row.mean]
    bars = [] if row.bar is None else [row.bar.low, row.bar.high]
    return [*means, *bars, *(share for share, _ in row.seeds), *row.baselines.values()]


def _why(arm: ReportArm) -> str:
    states = arm.states
    if not states:
        return "not run"
    return ", ".join(states if len(states) == 1 else (f"{n} {s}" for s, n in states.items()))
