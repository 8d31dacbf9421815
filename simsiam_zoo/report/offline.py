"""HTML pages that open offline: everything is inside one file, and nothing may be fetched.

Class names, recipe strings, titles and paths come from files that nobody vouches for. They are
escaped by the template engine; were one not, the page's policy would still run no script and load
no style but the two whose hashes it names.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simsiam_zoo.charts.plots import page_marks
from simsiam_zoo.charts.sheet import page_css


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
