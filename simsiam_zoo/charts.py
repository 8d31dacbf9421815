"""Metrics over a run as charts: geometry that the page's SVG and its script share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 320, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 30
_BUCKETS = 200  # of a long run's points: the lowest and the highest of each are kept

Point = tuple[float, float, float, float]
"""(x px, y px, epoch, value)."""


@dataclass(frozen=True)
class Panel:
    """What shares a pair of axes.

    Args:
        title: what is drawn.
        note: how to read it, one line.
        keys: of the rows; several are told apart by label and by dashes.
        floor, ceiling: the axis covers them at least.
        log: logarithmic axis.
    """

    title: str
    note: str
    keys: Sequence[str]
    floor: float | None = None
    ceiling: float | None = None
    log: bool = False


@dataclass(frozen=True)
class Line:
    """One metric's curve."""

    label: str
    points: list[Point]

    @property
    def path(self) -> str:
        """The `points` of an SVG polyline."""
        return " ".join(f"{x:g},{y:g}" for x, y, _, _ in self.points)


@dataclass(frozen=True)
class Chart:
    """A panel, drawn: lines, and ticks as (px, text)."""

    panel: Panel
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]

    width, height = WIDTH, HEIGHT
    left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM

    @property
    def summary(self) -> str:
        """First and last value of each line, in words, for those who do not see the chart."""
        ends = (
            f"{line.label} from {line.points[0][3]:.3g} to {line.points[-1][3]:.3g}"
            for line in self.lines
        )
        return f"{self.panel.title}: {'; '.join(ends)}"


def draw_charts(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """A chart for everything that these rows of `metrics.jsonl` hold."""
    last = max(rows, key=lambda row: row["step"], default=None)
    per_epoch = last["step"] / last["epoch"] if last and last.get("epoch") else 1.0
    epochs = last["step"] / per_epoch if last else 1.0
    return [draw(panel, rows, per_epoch, epochs) for panel in panels(rows) if panel.keys]


def panels(rows: Iterable[Mapping[str, Any]]) -> list[Panel]:
    """What there is to draw; a panel without keys has nothing."""
    known = list(dict.fromkeys(key for row in rows for key in row))

    def having(start: str) -> list[str]:
        return [key for key in known if key.startswith(start)]

    knn = having("top1 ")[:1]
    return [
        Panel("Loss", "what is minimised", having("loss")),
        Panel("std of z/|z| × √d", "1: scattered, 0: collapsed", having("std_sqrt_d"), 0, 1.1),
        Panel("Effective rank of z", "directions in use", having("effective_rank"), 0),
        Panel("kNN top-1 on the way", knn[0] if knn else "", knn, 0, 1),
        Panel("Alignment", "distance of two views; lower: closer", having("alignment"), 0),
        Panel("Uniformity", "lower: more even on the sphere", having("uniformity")),
        Panel("Gradient norm", "logarithmic", having("gradient_norm"), log=True),
        Panel("Learning rate", "of each part", having("lr_"), 0),
    ]


def draw(
    panel: Panel, rows: Sequence[Mapping[str, Any]], steps_per_epoch: float, epochs: float
) -> Chart:
    """Scale a panel's metrics to pixels. Values that are no finite numbers are left out."""
    found = [
        [
            (row["step"] / steps_per_epoch, float(row[key]))
            for row in rows
            if _drawable(row.get(key), panel.log)
        ]
        for key in panel.keys
    ]
    lines = [(key, thin(values)) for key, values in zip(panel.keys, found, strict=True) if values]
    every = [point for _, values in lines for point in values]
    epochs = epochs or 1.0
    ys = [y for _, y in every] + [y for y in (panel.floor, panel.ceiling) if y is not None]
    ticks = find_ticks(ys, panel.log)
    low, high = (_scale(min(*ys, *ticks), panel.log), _scale(max(*ys, *ticks), panel.log))

    def at_x(x: float) -> float:
        return round(Chart.left + x / epochs * (Chart.right - Chart.left), 1)

    def at_y(y: float) -> float:
        share = (_scale(y, panel.log) - low) / ((high - low) or 1.0)
        return round(Chart.bottom - share * (Chart.bottom - Chart.top), 1)

    several = len(lines) > 1
    return Chart(
        panel,
        [
            Line(
                _label(key) if several else panel.title,
                [(at_x(x), at_y(y), round(x, 3), float(f"{y:.5g}")) for x, y in values],
            )
            for key, values in lines
        ],
        [(at_x(x), f"{x:g}") for x in find_ticks([0.0, epochs], False) if x <= epochs],
        [(at_y(y), f"{y:.6g}") for y in ticks],
    )


def thin(points: list[tuple[float, float]], buckets: int = _BUCKETS) -> list[tuple[float, float]]:
    """At most 2 x `buckets` of the points: a long run's peaks are kept, and its ends."""
    if len(points) <= 2 * buckets:
        return points
    size = -(-len(points) // (buckets - 1))
    kept = [points[0]]
    for start in range(0, len(points), size):
        bucket = points[start : start + size]
        ends = {min(bucket, key=lambda p: p[1]), max(bucket, key=lambda p: p[1])}
        kept += sorted(ends)
    return list(dict.fromkeys([*kept, points[-1]]))


def hover(charts: Sequence[Chart]) -> list[dict[str, Any]]:
    """What the page's script needs to show values, as JSON."""
    return [
        {"lines": [{"label": line.label, "points": line.points} for line in chart.lines]}
        for chart in charts
    ]


def find_ticks(values: Sequence[float], log: bool = False) -> list[float]:
    """Round numbers about the values; those at the ends may lie outside."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    low, high = min(values), max(values)
    if not log:
        ticks = MaxNLocator(5).tick_values(low, high)
    else:
        few = math.log10(high / low) > 2
        located = LogLocator(subs=(1.0,) if few else (1.0, 2.0, 5.0)).tick_values(low, high)
        near = [t for t in located if low / 2 <= t <= high * 2]
        ticks = near or located
    return [float(tick) for tick in ticks]


def _scale(value: float, log: bool) -> float:
    return math.log10(value) if log else value


def _drawable(value: object, log: bool) -> bool:
    good = isinstance(value, int | float) and math.isfinite(value)
    return good and (not log or float(value) > 0)  # type: ignore[arg-type]


def _label(key: str) -> str:
    return key.partition("_")[2].replace("_", " and ") or key
