"""Line charts against epochs: the scale, the ticks and the lines. `drawing.py` draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from simsiam_zoo.metrics import CHARTED, TOP1, Metric, finite

WIDTH, HEIGHT = 320, 226
LEFT, RIGHT, TOP, BOTTOM = 58, 304, 8, 186
"""The box of the axes, in pixels of a chart of WIDTH by HEIGHT."""

LABELS = (140, 240)
"""Pixels to the right of a chart for the names at its lines' ends; more where some are long."""

COLORS, DASHES = 6, 4
"""A line has one of 6 colours and one of 4 dashes; a base is in the text's colour."""

_FEW = 30  # points of a line that are marked one by one
_MANY = 60  # lines above which those of single seeds are drawn fainter
_BUCKETS = 200  # of a long run's points: the lowest and the highest of each are drawn
_LABEL, _LETTER = 12, 6.4  # px between the names at the ends of lines, and of a letter in them
_FAR = (-3.0, 4.0)  # heights of the box beyond which a clipped line is drawn no further

Point = tuple[float, float]
"""(x, y) as values: epoch and metric."""


@dataclass(frozen=True)
class Series:
    """One line of a chart, of finite points by growing x.

    `style`: classes of its colour and dashes, `c0 d1`, or `base`. `name`: empty if it is the only
    one. `group`: lines that are switched together. `weight`: `seed` of several, `mean` or `alone`.
    `label`: what stands at its end.
    """

    points: Sequence[Point]
    style: str
    name: str = ""
    group: str = "0"
    weight: str = "alone"
    label: str = ""

    @property
    def marked(self) -> bool:
        """Whether its points are marked one by one."""
        return len(self.points) == 1 or (self.weight == "alone" and len(self.points) < _FEW)

    @property
    def values(self) -> str:
        """`x,y` of each point, for a page's script."""
        return " ".join(f"{x:.4g},{y:.4g}" for x, y in self.points)


@dataclass(frozen=True)
class Axis:
    """Values along one side of the box: `low` lies at `start` px, `high` at `end` px."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value, to a tenth."""
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        share = min(max((value - low) / ((high - low) or 1.0), _FAR[0]), _FAR[1])
        return round(self.start + share * (self.end - self.start), 1)

    def labels(self) -> list[tuple[float, str]]:
        """(pixel, text) of each tick."""
        return [(self.at(tick), f"{tick:.6g}".replace("-", "−")) for tick in self.ticks]


@dataclass(frozen=True)
class Chart:
    """A chart, scaled. `clipped`: lines leave the box, since they do not decide its scale.

    `against`: what x is. `marks`: epochs at which something changes, and what;
    `marks_told`: in words beside them, or else on hovering alone. `levels`: values to compare the
    lines with, and what they are of.
    """

    title: str
    note: str
    lines: Sequence[Series]
    x: Axis
    y: Axis
    clipped: bool = False
    against: str = "epoch"
    marks: Sequence[tuple[float, str]] = ()
    marks_told: bool = True
    levels: Sequence[tuple[float, str]] = ()

    @property
    def width(self) -> int:
        """Of the drawing, in pixels."""
        return WIDTH + self.room

    @property
    def room(self) -> int:
        """To the right, for the names at the lines' ends."""
        longest = max((len(line.label) for line, _, _ in self.ends), default=0)
        return LABELS[longest * _LETTER > LABELS[0]] if longest else 0

    @property
    def ends(self) -> list[tuple[Series, float, float]]:
        """The lines with a label: where each ends, and where its label stands apart from others.

        Empty where there is no room for all.
        """
        named = [(line, self._within(line.points[-1][1])) for line in self.lines if line.label]
        if len(named) > (BOTTOM - TOP) // _LABEL:
            return []
        named.sort(key=lambda each: each[1])
        places = _apart([y for _, y in named])
        return [(line, y, place) for (line, y), place in zip(named, places, strict=True)]

    @property
    def told_levels(self) -> list[tuple[float, float, str]]:
        """Each level: its pixel, that of its text (above, or below where no room is), the text."""
        found = sorted((self._within(value), text) for value, text in self.levels)
        places = _apart([y - 4 if y >= TOP + 12 else y + 12 for y, _ in found])
        return [(y, place, text) for (y, text), place in zip(found, places, strict=True)]

    def _within(self, value: float) -> float:
        return min(max(self.y.at(value), TOP), BOTTOM)

    @property
    def summary(self) -> str:
        """What it shows, for those who do not see it; of a few lines the first and last values."""
        if len(self.lines) > DASHES:
            return f"{self.title} against {self.against}, {len(self.lines)} lines"
        ends = (
            f"{line.name or self.title} from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}"
            for line in self.lines
        )
        more = [f"; at epoch {x:g} {text}" for x, text in self.marks]
        more += [f"; {text} {y:.3g}" for y, text in self.levels]
        return f"{self.title}: {'; '.join(ends)}{''.join(more)}"

    @property
    def many(self) -> bool:
        """Whether lines of single seeds are drawn fainter, since there are many."""
        return len(self.lines) > _MANY

    def path(self, line: Series) -> str:
        """`x,y` of each point, in pixels."""
        return " ".join(f"{x:g},{y:g}" for x, y in self.pixels(line))

    def pixels(self, line: Series) -> list[Point]:
        """Where the points of a line are."""
        return [(self.x.at(x), self.y.at(y)) for x, y in line.points]


def _apart(wanted: Sequence[float]) -> list[float]:
    """Rising pixels, moved as far as they must be to stand apart, above the box's lower edge."""
    places: list[float] = []
    for y in wanted:
        places.append(max(y, places[-1] + _LABEL) if places else y)
    least = float(BOTTOM)
    for i in reversed(range(len(places))):
        places[i] = min(places[i], least)
        least = places[i] - _LABEL
    return [round(y, 1) for y in places]


def make_chart(
    title: str,
    note: str,
    lines: Sequence[Series],
    end: float,
    *,
    cover: Iterable[float | None] = (),
    leading: Sequence[Series] = (),
    log: bool = False,
    levels: Sequence[tuple[float, str]] = (),
) -> Chart:
    """Scale lines, one at least and each with a point, to a chart.

    Args:
        end: of the x axis, which begins at 0.
        cover: values that the y axis covers too.
        leading: the lines that decide the y axis; by default all. Others may leave the box.
        log: logarithmic y axis; values are above 0.
        levels: values to compare with, and what they are of; the y axis covers them.
    """
    values = [y for line in leading or lines for _, y in line.points]
    values += [value for value in cover if value is not None]
    values += [value for value, _ in levels]
    ticks = find_ticks(min(values), max(values), log)
    low, high = min(*values, *ticks), max(*values, *ticks)
    x_ticks = [tick for tick in find_ticks(0.0, end) if tick <= end]
    return Chart(
        title,
        note,
        lines,
        Axis(0.0, end, LEFT, RIGHT, x_ticks),
        Axis(low, high, BOTTOM, TOP, ticks, log),
        any(not low <= y <= high for line in lines for _, y in line.points),
        levels=levels,
    )


def run_charts(
    rows: Sequence[Mapping[str, Any]],
    marks: Sequence[tuple[float, str]] = (),
    untrained: Sequence[Mapping[str, Any]] = (),
) -> list[Chart]:
    """A chart for each metric of which these rows of `metrics.jsonl` hold two values at least.

    `marks`: (epoch, text) of what changed in the middle of the run; those to come are not shown.
    `untrained`: figures of networks that were not trained, which are levels of top-1.
    """
    per_epoch = steps_per_epoch(rows)
    end = max((row["step"] for row in rows), default=per_epoch) / per_epoch
    charts = (_metric_chart(metric, rows, per_epoch, end, untrained) for metric in CHARTED)
    shown = [mark for mark in marks if mark[0] < end]
    return [replace(chart, marks=shown) for chart in charts if chart is not None]


def _metric_chart(
    metric: Metric,
    rows: Sequence[Mapping[str, Any]],
    per_epoch: float,
    end: float,
    untrained: Sequence[Mapping[str, Any]],
) -> Chart | None:
    """The chart of one metric; None without two points."""
    lines: list[Series] = []
    for column in metric.columns(rows):
        if len(points := metric_points(metric, column, rows, per_epoch)) > 1:
            style = f"c{len(lines) % COLORS} d{len(lines) % DASHES}"
            lines.append(Series(thin(points), style, metric.member(column), column))
    if not lines:
        return None
    note, levels = metric.note, list[tuple[float, str]]()
    if metric is TOP1:
        own = [each for each in untrained if each["protocol"] == lines[0].name]
        levels = [(metric.scale * each["top1"], each["network"]) for each in own]
    if len(lines) == 1:
        note = note or lines[0].name  # of top-1, its protocol
        lines = [replace(lines[0], name="")]
    cover = (metric.floor, metric.ceiling)
    return make_chart(metric.label, note, lines, end, cover=cover, log=metric.log, levels=levels)


def steps_per_epoch(rows: Iterable[Mapping[str, Any]]) -> float:
    """Steps of an epoch: `epoch` counts whole epochs, so the row at an epoch's end tells it.

    Before the first one's end all that was written lies in it.
    """
    steps, whole = [0.0], []
    for row in rows:
        steps.append(row["step"])
        if (epoch := finite(row.get("epoch")) or 0) > 0:
            whole.append(row["step"] / epoch)
    return float(min(whole, default=max(steps) + 1))


def metric_points(
    metric: Metric, column: str, rows: Iterable[Mapping[str, Any]], per_epoch: float
) -> list[Point]:
    """A column against epochs, as the metric is drawn; what is not finite is left out."""
    found = ((row["step"] / per_epoch, finite(row.get(column))) for row in rows)
    return [(x, metric.scale * y) for x, y in found if y is not None and (y > 0 or not metric.log)]


def line_style(number: int) -> str:
    """The style of the line of that number; styles repeat after COLORS x DASHES lines."""
    return f"c{number % COLORS} d{number // COLORS % DASHES}"


def thin(points: Sequence[Point], buckets: int = _BUCKETS) -> list[Point]:
    """At most 2 x `buckets` of the points: a long run's peaks are kept, and its ends."""
    if len(points) <= 2 * buckets:
        return list(points)
    size = -(-len(points) // (buckets - 1))
    kept = [points[0]]
    for start in range(0, len(points), size):
        bucket = points[start : start + size]
        kept += sorted({min(bucket, key=lambda p: p[1]), max(bucket, key=lambda p: p[1])})
    return list(dict.fromkeys([*kept, points[-1]]))


def find_ticks(low: float, high: float, log: bool = False) -> list[float]:
    """Two to eight round numbers about the values; those at the ends may lie outside."""
    return _log_ticks(low, high) if log else _linear_ticks(low, high)


def _linear_ticks(low: float, high: float) -> list[float]:
    if not high - low > 1e-9 * max(abs(low), abs(high)):  # one value: some room about it
        room = abs(low) / 10 or 1.0
        low, high = low - room, high + room
    rough = high / 6 - low / 6  # the difference alone may overflow
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * f for f in (1, 2, 2.5, 5, 10, 20) if size * f >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [float(f"{k * step:.12g}") for k in range(first, last + 1)]
    return [tick for tick in ticks if math.isfinite(tick)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if last - first > 2:
        stride = -(-(last - first) // 6)
        return [float(f"1e{max(k, -300)}") for k in range(first, min(last + stride, 309), stride)]
    every = [m * 10.0**k for k in range(first, last + 1) for m in (1, 2, 5)]
    below = max((t for t in every if t <= low * (1 + 1e-9)), default=every[0])
    above = min((t for t in every if t >= high * (1 - 1e-9)), default=every[-1])
    ticks = [float(f"{t:.12g}") for t in every if below <= t <= above]
    return ticks if len(ticks) > 1 else [ticks[0], 10 * ticks[0]]
