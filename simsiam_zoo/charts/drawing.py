"""Draws charts, dot plots and confusion matrices: inside a page, and as whole SVG files.

The files show in browsers and in Markdown, follow the reader's light or dark scheme, and hold all
that they need. Colours are written out: many viewers of SVG know no CSS variables. The templates
escape what they are given, which may come from untrusted files.
"""

from __future__ import annotations

import base64
import io
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simsiam_zoo.charts.dots import DotPlot, known_mark
from simsiam_zoo.charts.lines import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart

_PACKAGE = "simsiam_zoo.charts"
_ROW = 24  # px of a legend's or a dot plot's row
_GAP, _HEAD = 10, 40  # px between charts; for a chart's title and note
_CELL = 380  # px of a confusion matrix's side
_NAMED, _COUNTED = 40, 15  # classes whose names, and whose counts, find room in it

_NO_TEXT = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

Placed = tuple[float, float, Any, str]
"""(x, y) px of an item of a legend, the item, its label."""


def inline_chart(chart: Chart, clip: str) -> Markup:
    """The chart as an element of a page; `clip` is an id that no other element has."""
    macros: Any = _own().get_template("macros.svg").module
    return Markup(macros.inline(chart, clip))


def panels(charts: Sequence[Chart], prefix: str) -> list[tuple[Chart, Markup]]:
    """The charts of a page, each with its element; `prefix`: of ids that no others have."""
    return [(chart, inline_chart(chart, f"{prefix}{n}")) for n, chart in enumerate(charts)]


def page_css() -> str:
    """The style of charts and marks inside a page, and the palette as CSS variables."""
    return read_asset(_PACKAGE, "palette.css") + read_asset(_PACKAGE, "chart.css")


def page_marks() -> Markup:
    """The marks of verdicts (`m-learned`) and baselines (`b-0`), for `use` elements of a page."""
    return Markup(read_asset(_PACKAGE, "marks.svg"))


def line_sheet(title: str, charts: Sequence[Chart], keys: Sequence[tuple[str, str]] = ()) -> str:
    """Charts, one at least, four in a row (of wide ones two), as one SVG; the title may be empty.

    `keys`: (style, label) of lines that all charts share, shown below them; where there are none,
    a chart of several lines has its own.
    """
    wide = max(chart.width for chart in charts)
    across = min(4 if wide == WIDTH else 2, len(charts))
    width = max(across * wide + (across - 1) * _GAP, 2 * WIDTH)
    own = [[] if keys or len(c.lines) < 2 else [(x.style, x.name) for x in c.lines] for c in charts]
    legends = [_flow(each, 4, _HEAD + HEIGHT, wide - 8) for each in own]
    high = _HEAD + HEIGHT + max(rows for _, rows in legends) * _ROW + _GAP
    top = 34 if title else 4
    places = [
        (n % across * (wide + _GAP), top + n // across * high, chart, legend)
        for n, (chart, (legend, _)) in enumerate(zip(charts, legends, strict=True))
    ]
    bottom = top + -(-len(charts) // across) * high
    legend, rows = _flow(keys, 8, bottom, width - 16)
    height = bottom + rows * _ROW + 6
    return _file("lines.svg", width, height, title=title, places=places, legend=legend, head=_HEAD)


def dot_sheet(plot: DotPlot) -> str:
    """A dot plot as one SVG file: labels, marks on a common axis, values."""
    width, bottom = 822, 34 + _ROW * len(plot.rows)
    items: list[tuple[Any, str]] = [(("mark", verdict), verdict) for verdict in plot.marks]
    items += [(("baseline", place), network) for place, network in enumerate(plot.networks)]
    items += [] if plot.base is None else [(("base", ""), "the base")]
    items += [(("bar", of), told) for of, told in plot.bars.items()]
    legend, rows = _flow(items, 8, bottom + 30, width - 16)
    height = bottom + 34 + rows * _ROW
    values = {"plot": plot, "legend": legend, "row": _ROW, "bottom": bottom}
    # The axis begins at 276 px and is 400 px wide.
    return _file("dots.svg", width, height, px=lambda part: round(276 + 4 * part, 1), **values)


def evaluation_sheet(report: Mapping[str, Any]) -> str | None:
    """The confusion matrix of each figure of `evaluate`'s report, with each class's accuracy, as
    one SVG file; None where no matrix was kept."""
    shown = [figure for figure in report["figures"] if figure["confusion"] is not None]
    if not shown:
        return None
    data = report["data"]
    names = data["class_names"] or [str(i) for i in range(len(shown[0]["confusion"]))]
    side = _CELL / len(names)
    names = names if len(names) <= _NAMED else []
    widest = max((_text_width(name, 13) for name in names), default=0.0)
    room, turned = min(max(widest, 24), 150) + 10, widest > side - 4
    images = f"{data['test_images']:,} {data.get('measured_on', 'test')} images"
    title = f"{report['source']}: {report['network']}, {images} of {data['name']}"
    width = min(max(room + _CELL + 100, _text_width(title, 15) + 16), 1000)
    high = _CELL + (room if turned else 24) + 74
    return _file(
        "confusions.svg",
        width,
        34 + len(shown) * high,
        title=title,
        figures=[(figure, _matrix_uri(figure["confusion"])) for figure in shown],
        names=names,
        counted=len(names) <= _COUNTED,
        turned=turned,
        room=room,
        side=side,
        size=_CELL,
        high=high,
    )


def _matrix_uri(counts: Sequence[Sequence[int]]) -> str:
    """The matrix as an image, a pixel for each cell: the bluer, the more of its row."""
    import numpy as np
    from PIL import Image

    cells = np.asarray(counts)
    shares = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    white, blue = np.array([255, 255, 255]), np.array([11, 92, 173])
    pixels = (white + shares[..., None] * (blue - white)).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _flow(
    items: Sequence[tuple[Any, str]], x: float, y: float, width: float
) -> tuple[list[Placed], int]:
    """Lay out items of a legend in rows: where each is, and how many rows."""
    places: list[Placed] = []
    across, down = 0.0, 0
    for item, label in items:
        wide = min(_text_width(label, 13) + 46, width)
        if across and across + wide > width:
            across, down = 0.0, down + 1
        places.append((x + across, y + down * _ROW + 10, item, _shorten(label, width - 46)))
        across += wide + 14
    return places, down + 1 if items else 0


def _shorten(text: str, width: float, size: float = 13) -> str:
    """The text, shortened to about `width` px."""
    if _text_width(text, size) <= width:
        return text
    while text and _text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


def _text_width(text: str, size: float) -> float:
    """Estimated width of a text in px; rather too wide than too narrow."""
    ems = sum(1.0 if unicodedata.east_asian_width(sign) in "WF" else 0.58 for sign in text)
    return ems * size


def _file(template: str, width: float, height: float, **values: Any) -> str:
    """The whole file of an SVG, of so many px, in colours for a light and a dark page."""
    css = read_asset(_PACKAGE, "chart.css") + read_asset(_PACKAGE, "file.css")
    light, dark = read_asset(_PACKAGE, "palette.css").split("@media")
    style = f"{_colored(css, light)}@media (prefers-color-scheme: dark) {{ {_colored(css, dark)} }}"
    drawn = _own().get_template(template)
    return drawn.render(style=Markup(style), width=width, height=height, **values) + "\n"


def _colored(css: str, palette: str) -> str:
    """The CSS with the palette's colours in place of its variables."""
    colors = dict(re.findall(r"--(\w+): (#\w+);", palette))
    return re.sub(r"var\(--(\w+)\)", lambda found: colors[found[1]], css)


def environment(package: str, autoescape: bool = True) -> Environment:
    """The templates in the folder `template` of a package; they show text as `clean` gives it."""
    found = Environment(
        loader=PackageLoader(package, "template"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    found.globals["known_mark"] = known_mark
    return found


def read_asset(package: str, name: str) -> str:
    """A file beside the templates."""
    return (resources.files(package) / "template" / name).read_text("utf-8")


@cache
def _own() -> Environment:
    found = environment(_PACKAGE)
    box = {"LEFT": LEFT, "RIGHT": RIGHT, "TOP": TOP, "BOTTOM": BOTTOM}
    found.globals |= box | {"WIDTH": WIDTH, "HEIGHT": HEIGHT}
    found.globals["defined_marks"] = page_marks()
    found.filters["shorten"] = _shorten
    return found


def clean(text: str) -> str:
    """Text without control characters, lone surrogates and changes of the writing direction.

    Line ends stay; each other such character is shown as U+FFFD. It is not escaped for anything.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")
    return _NO_TEXT.sub("\ufffd", text)
