"""Line charts against epochs: the scale, the ticks, and the SVG of one chart."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import groupby
from typing import Any, Literal

from simsiam_zoo.metrics import CHARTED, TOP1, Metric

WIDTH, HEIGHT = 320, 226
LEFT, RIGHT, TOP, BOTTOM = 58, 304, 8, 186
"""The box that the axes enclose, in pixels of a chart of WIDTH by HEIGHT."""

COLORS, DASHES = 6, 4
"""A line has one of 6 colours and one of 4 dashes; a base is in the text's colour."""

_FEW = 30  # points of a line that are marked one by one
_MANY = 60  # lines above which those of single seeds are drawn fainter
_BUCKETS = 200  # of a long run's points: the lowest and the highest of each are drawn
_FAR = (-3.0, 4.0)  # heights of the box beyond which a clipped line is drawn no further

Weight = Literal["seed", "mean", "alone"]

Point = tuple[float, float]
"""(x, y) as values: epoch and metric."""


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Args:
        points: finite, by growing x.
        style: classes of its colour and dashes: `c0 d1`, or `base`.
        name: what tells it from others of its group.
        group: lines that are switched together; drawn as `data-arm`.
        weight: of the line: of one seed among several, their mean, or the only one.
    """

    points: Sequence[Point]
    style: str
    name: str = ""
    group: str = "0"
    weight: Weight = "alone"


@dataclass(frozen=True)
class Axis:
    """Values along one side of the box: `low` lies at `start` px, `high` at `end` px."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]
    log: bool = False
    scale: float = 1.0

    def at(self, value: float) -> float:
        """The pixel of a value, to a tenth."""
        low, high = _scaled(self.low, self.log), _scaled(self.high, self.log)
        share = (_scaled(value, self.log) - low) / ((high - low) or 1.0)
        share = min(max(share, _FAR[0]), _FAR[1])
        return round(self.start + share * (self.end - self.start), 1)

    def labels(self) -> list[tuple[float, str]]:
        """(pixel, text) of each tick."""
        return [(self.at(t), f"{self.scale * t:.6g}".replace("-", "−")) for t in self.ticks]


@dataclass(frozen=True)
class Chart:
    """A chart, scaled. `clipped`: lines leave the box, since they do not decide its scale."""

    title: str
    note: str
    lines: Sequence[Series]
    x: Axis
    y: Axis
    clipped: bool = False

    def summary(self) -> str:
        """First and last value of each line, in words, for those who do not see the chart."""
        ends = (
            f"{line.name or self.title} from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}"
            for line in self.lines
        )
        return f"{self.title}: {'; '.join(ends)}"

    @property
    def many(self) -> bool:
        """Whether lines of single seeds are drawn fainter, since there are many."""
        return len(self.lines) > _MANY

    def hover(self) -> list[dict[str, Any]]:
        """Per line its label and points (x px, y px, x, y), for a script that shows values."""
        return [
            {
                "label": line.name or self.title,
                "points": [
                    (self.x.at(x), self.y.at(y), round(x, 3), float(f"{y:.5g}"))
                    for x, y in line.points
                ],
            }
            for line in self.lines
        ]

    def svg(self, clip: str, label: str, cursor: Literal["line", "circle"]) -> str:
        """The chart as an element of a page.

        Args:
            clip: an id that no other element of the page has.
            label: what is read out.
            cursor: the mark that the page's script moves.
        """
        many = " many" if self.many else ""
        ends = {"line": f'y1="{TOP}" y2="{BOTTOM}"', "circle": 'r="4.5"'}[cursor]
        scale = self.y.scale
        return (
            f'<svg class="chart{many}" viewBox="0 0 {WIDTH} {HEIGHT}" tabindex="0" role="img"'
            f' aria-label="{escape(plain(label))}" data-x="{self.x.low} {self.x.high}"'
            f' data-y="{scale * self.y.low} {scale * self.y.high}"'
            f' data-box="{LEFT} {RIGHT} {TOP} {BOTTOM}">{self.drawing(clip)}'
            f'<{cursor} class="cursor" {ends} visibility="hidden"/></svg>'
        )

    def drawing(self, clip: str) -> str:
        """Grid, axes, ticks and lines, without the element around them."""
        parts = [
            f'<clipPath id="{clip}"><rect x="{LEFT}" y="{TOP - 2}" width="{RIGHT - LEFT + 3}"'
            f' height="{BOTTOM - TOP + 4}"/></clipPath>'
        ]
        for y, text in self.y.labels():
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}"/>')
            parts.append(f'<text class="tick end" x="{LEFT - 6}" y="{y + 4}">{text}</text>')
        for x, text in self.x.labels():
            parts.append(f'<text class="tick middle" x="{x}" y="{BOTTOM + 17}">{text}</text>')
        middle = (LEFT + RIGHT) / 2
        parts.append(f'<text class="tick middle" x="{middle}" y="{BOTTOM + 34}">epoch</text>')
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}"/>')
        parts.append(f'<g clip-path="url(#{clip})">')
        for (group, style), lines in groupby(self.lines, lambda line: (line.group, line.style)):
            drawn = "".join(self._line(line) for line in lines)
            parts.append(f'<g class="arm {style}" data-arm="{escape(plain(group))}">{drawn}</g>')
        return "".join([*parts, "</g>"])

    def _line(self, line: Series) -> str:
        pixels = [(self.x.at(x), self.y.at(y)) for x, y in line.points]
        path = " ".join(f"{x:g},{y:g}" for x, y in pixels)
        marked = len(pixels) == 1 or (line.weight == "alone" and len(pixels) < _FEW)
        dots = "".join(f'<circle cx="{x}" cy="{y}" r="2.4"/>' for x, y in pixels) if marked else ""
        name = escape(plain(line.name))
        return f'<polyline class="{line.weight}" data-seed="{name}" points="{path}"/>{dots}'


def make_chart(
    title: str,
    note: str,
    lines: Sequence[Series],
    end: float,
    *,
    cover: Iterable[float] = (),
    leading: Sequence[Series] | None = None,
    log: bool = False,
    scale: float = 1.0,
) -> Chart:
    """Scale lines to a chart.

    Args:
        title, note: what is drawn, and one line on how to read it.
        lines: one at least, each with a point.
        end: of the x axis, which begins at 0.
        cover: values that the y axis covers too.
        leading: the lines that decide the y axis; by default all. Others may leave the box.
        log: logarithmic y axis; values are above 0.
        scale: by which values are multiplied where they are written.
    """
    values = [y for line in leading or lines for _, y in line.points] + list(cover)
    ticks = find_ticks(min(values), max(values), log)
    low, high = min(*values, *ticks), max(*values, *ticks)
    x_ticks = [tick for tick in find_ticks(0.0, end) if tick <= end]
    return Chart(
        title,
        note,
        lines,
        Axis(0.0, end, LEFT, RIGHT, x_ticks),
        Axis(low, high, BOTTOM, TOP, ticks, log, scale),
        any(not low <= y <= high for line in lines for _, y in line.points),
    )


def run_charts(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """A chart for each metric that these rows of `metrics.jsonl` hold."""
    last = max(rows, key=lambda row: row["step"], default=None)
    per_epoch = last["step"] / last["epoch"] if last and last.get("epoch") else 1.0
    end = (last["step"] / per_epoch if last else 0.0) or 1.0
    charts = (_metric_chart(metric, rows, per_epoch, end) for metric in CHARTED)
    return [chart for chart in charts if chart is not None]


def _metric_chart(
    metric: Metric, rows: Sequence[Mapping[str, Any]], per_epoch: float, end: float
) -> Chart | None:
    """The chart of one metric; None without points. Values that are not finite are left out."""
    lines: list[Series] = []
    for column in metric.columns(rows):
        values = [
            (row["step"] / per_epoch, float(row[column]))
            for row in rows
            if _drawable(row.get(column), metric.log)
        ]
        if values:
            style = f"c{len(lines) % COLORS} d{len(lines) % DASHES}"
            lines.append(Series(thin(values), style, metric.member(column), column))
    if not lines:
        return None
    note = metric.note
    if len(lines) == 1:
        note = f"{note}, {lines[0].name}" if metric is TOP1 else note  # with its protocol
        lines = [replace(lines[0], name="")]
    cover = [value for value in (metric.floor, metric.ceiling) if value is not None]
    return make_chart(metric.label, note, lines, end, cover=cover, log=metric.log)


def thin(points: Sequence[Point], buckets: int = _BUCKETS) -> list[Point]:
    """At most 2 x `buckets` of the points: a long run's peaks are kept, and its ends."""
    if len(points) <= 2 * buckets:
        return list(points)
    size = -(-len(points) // (buckets - 1))
    kept = [points[0]]
    for start in range(0, len(points), size):
        bucket = points[start : start + size]
        ends = {min(bucket, key=lambda p: p[1]), max(bucket, key=lambda p: p[1])}
        kept += sorted(ends)
    return list(dict.fromkeys([*kept, points[-1]]))


def find_ticks(low: float, high: float, log: bool = False) -> list[float]:
    """Two to eight round numbers about the values; those at the ends may lie outside."""
    return _log_ticks(low, high) if log else _linear_ticks(low, high)


def _linear_ticks(low: float, high: float) -> list[float]:
    if not high - low > 1e-12 * max(abs(low), abs(high)):  # one value: some room about it
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


def plain(text: str) -> str:
    """The text as XML and UTF-8 can hold it: control characters and half characters are U+FFFD."""
    return "".join("\ufffd" if unicodedata.category(s) in ("Cc", "Cs") else s for s in text)


def _scaled(value: float, log: bool) -> float:
    return math.log10(value) if log else value


def _drawable(value: object, log: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return False
    return math.isfinite(number) and (not log or number > 0)
