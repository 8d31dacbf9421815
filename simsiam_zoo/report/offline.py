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


def render_offline(package: str, name: str, **values: Any) -> str:
    """Render `template/NAME.html` of a package.

    The template is given `css` and `js`, which it puts inside, from `NAME.css` and `NAME.js` beside
    it, and `policy` for its meta element.
    """
    css, js = _text(package, f"{name}.css"), _text(package, f"{name}.js")
    environment = Environment(
        loader=PackageLoader(package, "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template(f"{name}.html")
    return template.render(policy=policy(css, js), css=Markup(css), js=Markup(js), **values)


def policy(css: str, js: str) -> str:
    """The content security policy: this style, this script, images from the page itself."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(css)}'; script-src '{_hash(js)}';"
        " base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(package: str, name: str) -> str:
    return (resources.files(package) / "template" / name).read_text("utf-8")
