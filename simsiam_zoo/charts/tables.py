"""Rows of text as a table, for Python's `print` and for a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Aligned lines: the first column to the left, the others, which are figures, to the right."""
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def html_table(rows: Sequence[Sequence[str]], heading: str = "", note: str = "") -> str:
    """The same below a heading and a note; the first row has the columns' heads. All is escaped."""
    found = f"<p><b>{html.escape(heading)}</b><br>{html.escape(note)}</p>" if heading else ""
    for number, row in enumerate(rows):
        tag = "td" if number else "th"
        cells = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
        found += f"<tr>{cells}</tr>" if number else f"<table><tr>{cells}</tr>"
    return found + "</table>" * bool(rows)
