"""Dot plots and confusion matrices as whole SVG files, and the marks of verdicts."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simsiam_zoo.charts.sheet import ROW, document, flow, placed, shorten, text_at, text_width

MARKS = {
    "learned": '<circle r="5.5"/>',
    "collapsed": '<path d="M-5-5L5 5M5-5L-5 5"/>',
    "diverged": '<path d="M0-6.5L6 4.5H-6z"/>',
    "no-gain": '<circle r="4.8"/>',
    "worse": '<path d="M-6.5-4.5H6.5L0 6.5z"/>',
    "undetermined": '<path d="M0-6L6 0L0 6L-6 0z"/>',
    "mixed": '<path d="M-5-5H5V5H-5z"/>',
}
"""Verdict → the shape of its mark; any other verdict looks like `undetermined`."""

BASELINE_MARKS = (
    '<path d="M-4.5-4H4.5L0 4.5z"/>',
    '<path d="M0-7V7"/>',
    '<path d="M-3.5-3.5H3.5V3.5H-3.5z"/>',
)

_LABEL, _PLOT, _VALUE = 260, 400, 130  # px of a dot plot's columns
_CELL = 380  # px of a confusion matrix's side
_NAMED = 40  # classes whose names find room on the axes


@dataclass(frozen=True)
class Bar:
    """An error bar: one standard deviation of the seeds to each side, or what images alone give.

    Args:
        low, high: shares.
        of: `seeds`, or `images` where one seed is all there is.
    """

    low: float
    high: float
    of: str


@dataclass(frozen=True)
class Dot:
    """A row of a dot plot.

    Args:
        label: of the row; bold if it is the base's.
        mean: share; None where there is none yet.
        mark: verdict that gives the mark its shape and colour.
        seeds: (share, verdict) of each, where there are several.
        baselines: share by network that was not trained.
        text: the value, or why there is none.
    """

    label: str
    is_base: bool
    mean: float | None
    mark: str | None
    bar: Bar | None
    seeds: list[tuple[float, str | None]]
    baselines: dict[str, float]
    text: str


@dataclass(frozen=True)
class DotPlot:
    """Rows for one metric, and the axis: ends and ticks as shares."""

    metric: str
    rows: list[Dot]
    low: float
    high: float
    ticks: list[float]
    base: float | None

    def at(self, share: float) -> float:
        """Per cent of the width."""
        return round(100 * (share - self.low) / ((self.high - self.low) or 1.0), 2)

    @property
    def networks(self) -> list[str]:
        """The baselines that occur."""
        return list(dict.fromkeys(name for row in self.rows for name in row.baselines))

    @property
    def marks(self) -> list[str]:
        """The marks that occur."""
        means = [row.mark for row in self.rows if row.mean is not None]
        seeds = [verdict for row in self.rows for _, verdict in row.seeds]
        return list(dict.fromkeys(known_mark(each) for each in means + seeds))

    @property
    def bars(self) -> list[str]:
        """What the error bars that occur stand for."""
        return list(dict.fromkeys(row.bar.of for row in self.rows if row.bar is not None))


def known_mark(verdict: str | None) -> str:
    """The verdict if it has a mark in `MARKS`, else `undetermined`."""
    return verdict if verdict in MARKS else "undetermined"


def mark(verdict: str | None, scale: float = 1.0) -> str:
    """The mark of a verdict about (0, 0)."""
    name = known_mark(verdict)
    smaller = "" if scale == 1 else f' transform="scale({scale})"'
    return f'<g class="v-{name}"{smaller}>{MARKS[name]}</g>'


def page_marks() -> str:
    """The marks of verdicts and baselines as symbols of a page: `m-learned`, `b-0`."""
    named = {f"m-{name}": shape for name, shape in MARKS.items()}
    named |= {f"b-{number}": shape for number, shape in enumerate(BASELINE_MARKS)}
    return "".join(shape.replace(" ", f' id="{id}" ', 1) for id, shape in named.items())


def dot_sheet(plot: DotPlot) -> str:
    """A dot plot as one SVG file: labels, marks on a common axis, values."""
    left, width = _LABEL + 16, _LABEL + _PLOT + _VALUE + 32

    def at(share: float) -> float:
        return round(left + plot.at(share) / 100 * _PLOT, 1)

    top, bottom = 34, 34 + ROW * len(plot.rows)
    parts = [text_at(8, 20, shorten(plot.metric, width - 16, 13), "t b")]
    for tick in plot.ticks:
        x, text = at(tick), f"{round(100 * tick, 3):g} %"
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>')
        parts.append(text_at(x, bottom + 18, text, "tick middle"))
    if plot.base is not None:
        x = at(plot.base)
        parts.append(f'<line class="reference" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>')
    for number, row in enumerate(plot.rows):
        y, bold = top + ROW * number + ROW / 2, " b" if row.is_base else ""
        parts.append(text_at(8, y + 4, shorten(row.label, _LABEL - 8, 13), f"t{bold}"))
        parts.append(text_at(width - 8, y + 4, shorten(row.text, _VALUE, 13), f"t end{bold}"))
        marks = [
            placed(at(row.baselines[network]), y, _baseline(place))
            for place, network in enumerate(plot.networks)
            if network in row.baselines
        ]
        marks += [_bar(row, at, y)] if row.bar is not None else []
        marks += [
            placed(at(share), y, mark(verdict, 0.55), "small") for share, verdict in row.seeds
        ]
        marks += [placed(at(row.mean), y, mark(row.mark))] if row.mean is not None else []
        parts += marks
    items = [(mark(verdict), verdict) for verdict in plot.marks]
    items += [(_baseline(place), network) for place, network in enumerate(plot.networks)]
    if plot.base is not None:
        items.append(('<line class="reference" y1="-8" y2="8"/>', "the base"))
    names = {
        "seeds": "± 1 standard deviation over seeds; small marks: seeds",
        "images": "one seed: 95 % interval of the test images",
    }
    for of in plot.bars:
        items.append((f'<path class="key bar {of}" d="M-12 0H12"/>', names[of]))
    legend, rows = flow(items, 8, bottom + 30, width - 16)
    return document(width, bottom + 34 + rows * ROW, [*parts, legend])


def evaluation_sheet(report: Mapping[str, Any]) -> str | None:
    """For each figure of an evaluation its confusion matrix, and each class's accuracy, as SVG.

    Args:
        report: of `evaluate`.

    Returns:
        The file; None where no confusion matrix was kept.
    """
    shown = [figure for figure in report["figures"] if figure["confusion"] is not None]
    if not shown:
        return None
    data = report["data"]
    names = data["class_names"] or [str(i) for i in range(len(shown[0]["confusion"]))]
    widest = max(text_width(name, 13) for name in names) if len(names) <= _NAMED else 0
    room = min(max(widest, 24), 150) + 10
    width, high = 2 * (room + _CELL) + 60, _CELL + room + 74
    title = f"{report['source']}: {report['network']}, {data['test_images']:,} test images"
    parts = [text_at(8, 22, shorten(f"{title} of {data['name']}", width - 16, 15), "h")]
    for number, figure in enumerate(shown):
        y, interval = 34 + number * high, ""
        if figure["top1_interval"] is not None:
            low, high_ = figure["top1_interval"]
            interval = f" ({100 * low:.1f} to {100 * high_:.1f})"
        told = (
            f"{figure['protocol']}, version {figure['protocol_version']}:"
            f" top-1 {100 * figure['top1']:.1f} %{interval}"
        )
        matrix = _matrix(figure["confusion"], names, room)
        bars = _class_bars(figure["per_class"], figure["top1"], names, room)
        parts.append(text_at(8, y + 18, shorten(told, width - 16, 13), "t b"))
        parts.append(placed(room + 20, y + 40, matrix))
        parts.append(placed(2 * room + _CELL + 50, y + 40, bars))
    return document(width, 34 + len(shown) * high, parts)


def _matrix(counts: Any, names: Sequence[str], room: float) -> str:
    import numpy as np
    from PIL import Image

    cells = np.asarray(counts)
    shares = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    white, blue = np.array([255, 255, 255]), np.array([11, 92, 173])
    pixels = (white + shares[..., None] * (blue - white)).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    uri = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    parts = [
        f'<image class="cell" width="{_CELL}" height="{_CELL}" href="{uri}"'
        ' preserveAspectRatio="none"/>',
        text_at(_CELL / 2, _CELL + room + 14, "predicted", "s middle"),
        f'<g transform="translate({-room - 6} {_CELL / 2}) rotate(-90)">'
        f"{text_at(0, 0, 'label', 's middle')}</g>",
    ]
    side = _CELL / len(cells)
    if len(names) <= 15:
        for row, column in zip(*np.nonzero(cells), strict=True):
            style = "on-dark" if shares[row, column] > 0.5 else "on-light"
            x, y = (column + 0.5) * side, (row + 0.5) * side + 4
            parts.append(text_at(x, y, str(cells[row, column]), f"{style} middle"))
    return "".join([*parts, _class_axis(names, side, room, down=True)])


def _class_bars(
    shares: Sequence[float | None], top1: float, names: Sequence[str], room: float
) -> str:
    side = _CELL / len(shares)
    parts = [text_at(0, -10, "accuracy of each class; dashed: top-1", "s")]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = round(_CELL * (1 - share), 1)
        parts.append(f'<line class="grid" x1="0" x2="{_CELL}" y1="{y}" y2="{y}"/>')
        parts.append(text_at(-6, y + 4, f"{100 * share:g} %", "tick end"))
    for number, known in enumerate(shares):
        high = round(_CELL * (known or 0.0), 1)
        x, wide = round((number + 0.1) * side, 2), round(0.8 * side, 2)
        parts.append(f'<rect class="c0" stroke="none" x="{x}" y="{round(_CELL - high, 1)}"')
        parts.append(f' width="{wide}" height="{high}"/>')
    y = round(_CELL * (1 - top1), 1)
    parts.append(f'<line class="reference" x1="0" x2="{_CELL}" y1="{y}" y2="{y}"/>')
    return "".join([*parts, _class_axis(names, side, room)])


def _class_axis(names: Sequence[str], side: float, room: float, down: bool = False) -> str:
    """Names below, turned where they are long; `down`: beside the rows too."""
    if len(names) > _NAMED:
        return ""
    parts = []
    turned = max(text_width(name, 13) for name in names) > side - 4
    for number, name in enumerate(names):
        text, middle = shorten(name, room - 4, 13), round((number + 0.5) * side, 1)
        if turned:
            place = f'<g transform="translate({middle + 4} {_CELL + 6}) rotate(-90)">'
            parts.append(f"{place}{text_at(0, 0, text, 's end')}</g>")
        else:
            parts.append(text_at(middle, _CELL + 16, text, "s middle"))
        if down:
            parts.append(text_at(-6, middle + 4, text, "s end"))
    return "".join(parts)


def _bar(row: Dot, at: Any, y: float) -> str:
    assert row.bar is not None
    low, high, look = at(row.bar.low), at(row.bar.high), f"v-{known_mark(row.mark)}"
    ends = f"M{low} {y - 5}V{y + 5}M{high} {y - 5}V{y + 5}" if row.bar.of == "seeds" else ""
    return f'<path class="{look} bar {row.bar.of}" d="M{low} {y}H{high}{ends}"/>'


def _baseline(place: int) -> str:
    return f'<g class="baseline">{BASELINE_MARKS[min(place, 2)]}</g>'
