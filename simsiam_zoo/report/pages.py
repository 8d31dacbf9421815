"""HTML pages that open offline: a page holds all that it needs and may fetch nothing.

Class names, recipe strings, titles and paths come from untrusted files. The template engine escapes
them. If it missed one, the page's policy would still run no script and load no style but the two
whose hashes it names.
"""

from __future__ import annotations

import base64
import hashlib
from functools import partial
from typing import Any

from markupsafe import Markup

from simsiam_zoo.charts.drawing import environment, page_css, page_marks, read_asset

PACKAGE = "simsiam_zoo.report"
_read = partial(read_asset, PACKAGE)


def render_offline(name: str, **values: Any) -> str:
    """Render `template/NAME.html`.

    The template is given `css` and `js`, which it puts inside, from `page.css`, `page.js` and
    `NAME.css`, `NAME.js` beside it and the style of charts; `policy` for its meta element; and
    `marks`, the symbols of verdicts.
    """
    css = page_css() + _read("page.css") + _read(f"{name}.css")
    js = _read("page.js") + _read(f"{name}.js")
    # This style, this script, and images from the page itself.
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(css)}'; script-src '{_hash(js)}';"
        " base-uri 'none'; form-action 'none'"
    )
    template = environment(PACKAGE).get_template(f"{name}.html")
    own = {"css": Markup(css), "js": Markup(js), "marks": page_marks(), "policy": policy}
    return template.render(**own, **values)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
