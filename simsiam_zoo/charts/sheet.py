"""Whole SVG files: line charts on a sheet, and the elements of other files.

They show in browsers and in Markdown, follow the reader's light or dark scheme, and hold all that
they need. Colours are written out: many viewers of SVG know no CSS variables.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from html import escape
from importlib import resources

from simsiam_zoo.charts.lines import HEIGHT, WIDTH, Chart, plain

PALETTE: dict[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#14181d"),
    "raised": ("#f6f7f9", "#1d232a"),
    "ink": ("#1b2026", "#e8ebef"),
    "soft": ("#59636f", "#a3adb8"),
    "line": ("#d9dee4", "#343c46"),
    "accent": ("#0b5cad", "#7db8f5"),
    "good": ("#0f7a3d", "#62cf8c"),
    "bad": ("#b3261e", "#ff8a80"),
    "wild": ("#7a2d8f", "#d79be8"),
    "amber": ("#8a6100", "#e0b64a"),
    "c0": ("#3d6fa8", "#6f9fd8"),
    "c1": ("#e0566a", "#f27c8d"),
    "c2": ("#1f8a3c", "#4cb868"),
    "c3": ("#b08b00", "#ddc24a"),
    "c4": ("#2a9fce", "#74d0f2"),
    "c5": ("#a0307a", "#d870b4"),
}
"""Name → colour on a light and on a dark page."""

_GAP, _HEAD = 10, 40  # px between charts; for a chart's title and note
ROW = 24  # px of a legend's or a dot plot's row

_OWN = """
.paper { fill: var(--paper); }
.t { fill: var(--ink); font-size: 13px; }
.b { font-weight: 600; }
.s, .tick { fill: var(--soft); font-size: 13px; }
.h { fill: var(--ink); font-size: 15px; font-weight: 600; }
.cell { image-rendering: pixelated; }
.on-dark { fill: #ffffff; font-size: 11px; }
.on-light { fill: #1b2026; font-size: 11px; }
"""


def page_css() -> str:
    """The style of charts and marks inside a page, and the palette as CSS variables."""
    light, dark = ("".join(f"--{n}: {c[i]}; " for n, c in PALETTE.items()) for i in (0, 1))
    return (
        f":root {{ color-scheme: light dark; {light}}}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}\n{_chart_css()}"
    )


def line_sheet(
    title: str, charts: Sequence[Chart], keys: Sequence[tuple[str, str]] = (), across: int = 4
) -> str:
    """Charts beside each other as one SVG file.

    Args:
        title: above them; may be empty.
        charts: one at least.
        keys: (style, label) of lines that all charts share, shown below them; where there are
            none, a chart of several lines has its own.
        across: charts in a row, at most.
    """
    across = min(across, len(charts))
    width = max(across * WIDTH + (across - 1) * _GAP, 2 * WIDTH)
    own = [[] if keys or len(c.lines) < 2 else [(x.style, x.name) for x in c.lines] for c in charts]
    legends = [_keys(each, 4, _HEAD + HEIGHT, WIDTH - 8) for each in own]
    high = _HEAD + HEIGHT + max(rows for _, rows in legends) * ROW + _GAP
    top = 34 if title else 4
    parts = [text_at(8, 22, shorten(title, width - 16, 15), "h")] if title else []
    for number, (chart, (legend, _)) in enumerate(zip(charts, legends, strict=True)):
        note = chart.note + ("; lines of diverged arms leave the panel" if chart.clipped else "")
        many = "many" if chart.many else ""
        cell = [
            text_at(8, 16, shorten(chart.title, WIDTH - 12, 13), "t b"),
            text_at(8, 33, shorten(note, WIDTH - 12, 13), "s"),
            placed(0, _HEAD, chart.drawing(f"c{number}"), many),
            legend,
        ]
        x, y = number % across * (WIDTH + _GAP), top + number // across * high
        parts.append(placed(x, y, "".join(cell)))
    bottom = top + -(-len(charts) // across) * high
    legend, rows = _keys(keys, 8, bottom, width - 16)
    return document(width, bottom + rows * ROW + 6, [*parts, legend])


def shorten(text: str, width: float, size: float) -> str:
    """The text, shortened to about `width` px."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


def _keys(keys: Sequence[tuple[str, str]], x: float, y: float, width: float) -> tuple[str, int]:
    swatch = '<g class="swatch {}"><line x1="-14" x2="14" y1="0" y2="0"/></g>'
    return flow([(swatch.format(style), label) for style, label in keys], x, y, width)


def flow(items: Sequence[tuple[str, str]], x: float, y: float, width: float) -> tuple[str, int]:
    """Lay out items (drawing about (0, 0), label) in rows: the SVG, and how many rows."""
    parts, across, down = [], 0.0, 0
    for drawn, label in items:
        text = shorten(label, width - 46, 13)
        wide = text_width(text, 13) + 46
        if across and across + wide > width:
            across, down = 0.0, down + 1
        left, middle = x + across, y + down * ROW + 10
        parts.append(placed(left + 14, middle, drawn) + text_at(left + 36, middle + 4, text, "s"))
        across += wide + 14
    return "".join(parts), down + 1 if items else 0


def placed(x: float, y: float, drawn: str, style: str = "") -> str:
    """A drawing about (0, 0), moved to (x, y)."""
    named = f' class="{style}"' if style else ""
    return f'<g{named} transform="translate({x} {y})">{drawn}</g>'


def text_at(x: float, y: float, text: str, style: str) -> str:
    """A text at (x, y); it is escaped here."""
    return f'<text class="{style}" x="{x:g}" y="{y:g}">{escape(plain(text))}</text>'


def text_width(text: str, size: float) -> float:
    """Estimated width of a text in px; rather too wide than too narrow."""
    ems = sum(1.0 if unicodedata.east_asian_width(sign) in "WF" else 0.58 for sign in text)
    return ems * size


def document(width: float, height: float, parts: Sequence[str]) -> str:
    """The whole file of an SVG, of so many px."""
    css = _chart_css() + _OWN
    light, dark = (
        re.sub(r"var\(--(\w+)\)", lambda found, i=i: PALETTE[found[1]][i], css)  # type: ignore[misc]
        for i in (0, 1)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}"'
        f' viewBox="0 0 {width:g} {height:g}">\n<style>{light}'
        f"@media (prefers-color-scheme: dark) {{ {dark} }}</style>\n"
        f'<rect class="paper" width="100%" height="100%"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _chart_css() -> str:
    return (resources.files("simsiam_zoo.charts") / "chart.css").read_text("utf-8")
