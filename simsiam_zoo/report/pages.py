"""HTML pages that open offline: everything is inside one file, and nothing may be fetched.

Here is the page of a study; that of a run is in `run_page.py`, for it needs torch.

Class names, recipe strings, titles and paths come from untrusted files. The template engine escapes
them. If it missed one, the page's policy would still run no script and load no style but the two
whose hashes it names.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simsiam_zoo.charts.lines import COLORS, DASHES, Chart
from simsiam_zoo.charts.plots import known_mark, page_marks
from simsiam_zoo.charts.sheet import page_css
from simsiam_zoo.report import answer, tables, text
from simsiam_zoo.report.study import StudyView
from simsiam_zoo.report.study_charts import Curves, curve_charts, dot_plots, figure_2, legend
from simsiam_zoo.runtime.progress import duration

_OPEN = 24  # rows of recipe differences that need not be folded away


def render_offline(name: str, **values: Any) -> str:
    """Render `template/NAME.html`.

    The template is given `css` and `js`, which it puts inside, from `page.css` and `NAME.css`,
    `NAME.js` beside it and the style of charts; `policy` for its meta element; and
    `marks`, the symbols of verdicts.
    """
    css = page_css() + _text("page.css") + _text(f"{name}.css")
    js = _text(f"{name}.js")
    environment = Environment(
        loader=PackageLoader("simsiam_zoo.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template(f"{name}.html")
    own = {"css": Markup(css), "js": Markup(js), "marks": Markup(page_marks())}
    return template.render(policy=policy(css, js), **own, **values)


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
