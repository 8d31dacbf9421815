"""HTML pages that open offline, and a study as such a page and as Markdown.

A page holds all that it needs and may fetch nothing. A run's page is in `run_page.py`: that needs
torch.

Class names, recipe strings, titles and paths come from untrusted files. The template engine escapes
them. If it missed one, the page's policy would still run no script and load no style but the two
whose hashes it names.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simsiam_zoo.charts.lines import COLORS, DASHES, Chart
from simsiam_zoo.charts.plots import known_mark, page_marks
from simsiam_zoo.charts.sheet import page_css
from simsiam_zoo.report import answer, tables, text
from simsiam_zoo.report.study import StudyView
from simsiam_zoo.report.study_charts import (
    PLOTS,
    Curves,
    curve_charts,
    dot_plots,
    figure_2,
    legend,
)
from simsiam_zoo.runtime.progress import duration

_OPEN = 24  # rows of recipe differences that need not be folded away
_ENTITIES = {sign: f"&#{ord(sign)};" for sign in "\\`|<>&@$[]"}
_START = re.compile(r"^(?:[-+=#>]|\d{1,9}[.)](?= |$))")

_READING = (
    "Mean ± standard deviation over seeds. From base: difference in points, paired by seed, and its"
    " 95 % t-interval, which covers the choice of seeds, not that of test images."
    " Paper: what the paper states of such an arm, with its own data, network and protocol."
)


def render_offline(name: str, **values: Any) -> str:
    """Render `template/NAME.html`.

    The template is given `css` and `js`, which it puts inside, from `page.css` and `NAME.css`,
    `NAME.js` beside it and the style of charts; `policy` for its meta element; and
    `marks`, the symbols of verdicts.
    """
    css = page_css() + _text("page.css") + _text(f"{name}.css")
    js = _text(f"{name}.js")
    template = _environment(autoescape=True).get_template(f"{name}.html")
    own = {"css": Markup(css), "js": Markup(js), "marks": Markup(page_marks())}
    return template.render(policy=policy(css, js), **own, **values)


def _environment(autoescape: bool) -> Environment:
    return Environment(
        loader=PackageLoader("simsiam_zoo.report", "template"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def policy(css: str, js: str) -> str:
    """The content security policy: this style, this script, images from the page itself."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(css)}'; script-src '{_hash(js)}';"
        " base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(name: str) -> str:
    return (resources.files("simsiam_zoo.report") / "template" / name).read_text("utf-8")


def render_study(study: StudyView, curves: Curves) -> str:
    """The page of a study.

    Args:
        study: as `read_results` gives it.
        curves: of its runs, as `read_curves` gives them.
    """
    drawn = {curve.arm for each in curves.values() for curve in each}
    pair = figure_2(study, drawn)
    return render_offline(
        "study",
        **_content(study),
        groups=_groups(tables.arm_columns(study)),
        plots=dot_plots(study),
        panels=_drawn(curve_charts(study, curves, drawn), "c"),
        keys=legend(study, drawn),
        pair=_drawn(curve_charts(study, curves, {key.arm for key in pair}), "p"),
        pair_keys=pair,
        unfolded=sum(len(arm.differences) for arm in study.arms) <= _OPEN,
        palette=COLORS * DASHES,
        known_mark=known_mark,
        axis_tick=text.tick,
    )


def render_markdown(study: StudyView, plots: Sequence[str]) -> str:
    """`report.md`: the report in GitHub-flavoured Markdown, with the plots beside it.

    Args:
        study: as `read_results` gives it.
        plots: names of the files in `plots/`.
    """
    environment = _environment(autoescape=False)
    environment.filters |= {"md": escape, "cell": _cell, "head": _head, "fenced": fenced}
    shown = {name: what for name, what in PLOTS.items() if name in plots}
    template = environment.get_template("study.md")
    return template.render(**_content(study), plot_files=shown).rstrip("\n") + "\n"


def _content(study: StudyView) -> dict[str, Any]:
    """What the page and the Markdown have in common."""
    return {
        "study": study,
        "progress": answer.progress(study),
        "answer": answer.answer(study),
        "notes": answer.notes(study),
        "warnings": [
            (warning, text.listing([text.quoted(arm) for arm in arms]))
            for warning, arms in answer.warnings(study)
        ],
        "columns": tables.arm_columns(study),
        "table_rows": list(zip(study.arms, tables.arm_rows(study), strict=True)),
        "reading": _READING,
        "run_columns": tables.run_columns(study),
        "runs": tables.run_rows(study),
        "differing": [arm for arm in study.arms if arm.differences],
        "failed": [(arm, run) for arm, run in study.runs if run.error],
        "not_run": answer.not_run(study),
        "time": wall_time(study),
    }


def escape(value: str, begins: bool = True) -> str:
    """Escape a text for a paragraph, a list or a table's cell.

    Args:
        value: on one line or several, which become one.
        begins: whether it may stand at a line's or an item's beginning.

    Entities are used where a backslash would not do in a table, and for what GitHub makes more of
    (`@name`, `$`). Addresses do not become links.
    """
    value = "".join(_ENTITIES.get(sign, sign) for sign in " ".join(value.split()))
    value = re.sub(r"[*~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", value)
    value = re.sub(r"(?i)\b(https?|ftp|mailto|xmpp)(:)", r"\1&#58;", value)
    value = re.sub(r"(?i)\bwww\.", "www&#46;", value)
    value = re.sub(r"(?<=\s)#(?=#*$)", r"\#", value)  # it would close a heading
    if not begins:
        return value
    return _START.sub(lambda found: f"{found[0][:-1]}&#{ord(found[0][-1])};", value)


def fenced(value: str) -> str:
    """A fenced block; its fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", value)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{value}\n{fence}"


def _head(column: tables.Column) -> str:
    if not column.group:
        return escape(column.title)
    note = f"<br>{escape(column.note)}" if column.note else ""
    return f"{escape(column.title)}<br>{escape(column.group)}{note}"


def _cell(cell: tables.Cell) -> str:
    note = f"<br><sub>{escape(cell.note, begins=False)}</sub>" if cell.note else ""
    return escape(cell.text, begins=False) + note


def _drawn(charts: list[Chart], prefix: str) -> list[tuple[Chart, Markup]]:
    """Charts with their SVG; the prefix makes ids unique on the page."""
    label = "{} against epochs, a line for each seed of each arm"
    return [
        (chart, Markup(chart.svg(f"{prefix}{n}", label.format(chart.title), "circle")))
        for n, chart in enumerate(charts)
    ]


def wall_time(study: StudyView) -> str:
    """Time of all runs together; empty if no run has stated its own."""
    seconds = [run.seconds for _, run in study.runs if run.seconds is not None]
    return duration(sum(seconds)) if seconds else ""


def _groups(columns: list[tables.Column]) -> list[dict[str, Any]]:
    """First row of the table's head: one cell for neighbouring columns of one group."""
    found: list[dict[str, Any]] = []
    for at, column in enumerate(columns):
        if column.group and found and found[-1]["group"] == column.group:
            found[-1]["span"] += 1
        else:
            head = {"group": column.group, "note": column.note, "span": 1}
            found.append(head | {"column": column, "at": at})
    return found
