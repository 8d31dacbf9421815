"""How reports write: HTML pages that open offline, numbers, untrusted text.

Class names, recipe strings, titles and paths come from untrusted files. The template engine escapes
them. If it missed one, the page's policy would still run no script and load no style but the two
whose hashes it names.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

from markupsafe import Markup

from simsiam_zoo.charts.drawing import clean, environment, page_css, page_marks, read_asset
from simsiam_zoo.recipe.changes import in_words, is_change

PACKAGE = "simsiam_zoo.report"
_read = partial(read_asset, PACKAGE)

MINUS = "−"
MISSING = "–"
NARROW = "\u00a0"
"""A space at which no line ends."""

_ENTITIES = {sign: f"&#{ord(sign)};" for sign in "\\`|<>&@$[]"}
_START = re.compile(r"^(?:[-+=#>]|\d{1,9}[.)](?= |$))")


@dataclass(frozen=True)
class Column:
    """A column's head: `group` spans neighbours that share it; `note` is small print."""

    title: str
    group: str = ""
    note: str = ""
    number: bool = True


@dataclass(frozen=True)
class Cell:
    """One cell of a table: its text, small print below it, a verdict's mark before it.

    `sort`: what rows are sorted by; None (a missing value) comes last.
    """

    text: str = MISSING
    note: str = ""
    sort: float | str | None = None
    verdict: str | None = None


Table = tuple[list[Column], list[list[Cell]]]
"""Heads and rows; the first column names the row."""


def render_offline(name: str, looks: str | None = None, **values: Any) -> str:
    """Render `template/NAME.html`, with `NAME.css` and `NAME.js` and those of all pages inside.

    `looks`: the page whose style and script it has, where it has none of its own.

    The template is given them as `css` and `js`; `policy` for its meta element; and `marks`, the
    symbols of verdicts.
    """
    looks = looks or name
    css = page_css() + _read("page.css") + _read(f"{looks}.css")
    js = _read("page.js") + _read(f"{looks}.js")
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


def line(text: str) -> str:
    """`clean` on one line."""
    return " ".join(clean(text).split())


def compact(value: object) -> str:
    """A recipe's value in one line, as JSON writes it; a string without quotes.

    Changes in the middle of a run are told in words.
    """
    if value is None:
        return "not set"
    if isinstance(value, list) and value and all(is_change(each) for each in value):
        return "; ".join(map(in_words, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def fixed(value: float, digits: int, signed: bool = False) -> str:
    """A number with so many decimals and a typographic minus sign; zero has no sign."""
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def number(value: float | None, digits: int, scale: float = 1.0, note: str = "") -> Cell:
    """The cell of a figure; of none an empty one."""
    return Cell() if value is None else Cell(fixed(scale * value, digits), note, value)


def plus_minus(mean: float, std: float | None, digits: int = 2, scale: float = 1.0) -> str:
    """`95.5 ± 0.4`; without a standard deviation the mean alone."""
    text = fixed(scale * mean, digits)
    return text if std is None else f"{text}{NARROW}±{NARROW}{fixed(scale * std, digits)}"


def percent(share: float, std: float | None = None) -> str:
    """0.955 as `95.5 %`; with a standard deviation `95.5 ± 0.4 %`."""
    return f"{plus_minus(share, std, 1, 100)}{NARROW}%"


def points(share: float) -> str:
    """A difference of shares in points: -0.3 as `−30.0`."""
    return fixed(100 * share, 1, signed=True)


def quoted(name: str) -> str:
    """An arm's label in a sentence."""
    return f"“{name}”"


def listing(names: list[str], most: int = 8) -> str:
    """`a, b and c`; of many the first and how many more."""
    if len(names) > most + 1:
        names = [*names[:most], f"{len(names) - most} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def count(number: int, word: str) -> str:
    """`1 arm`, `2 arms`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def escape(value: str, begins: bool = True) -> str:
    """Text on one line that GitHub-flavoured Markdown shows as it is.

    Entities are used where a backslash would not do in a table, and for what GitHub makes more of
    (`@name`, `$`). Addresses do not become links. `begins`: it may stand at a line's beginning.
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
