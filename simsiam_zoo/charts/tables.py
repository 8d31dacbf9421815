"""Rows of text as a table, for Python's `print` and for a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Aligned lines: the first column to the left, the others, which are figures, to the right."""
    if not rows:
        return ""
    widths = [max(map(shown_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        figures = (padded(*each, right=True) for each in zip(rest, widths[1:], strict=True))
        lines.append((indent + "  ".join([padded(first, widths[0]), *figures])).rstrip())
    return "\n".join(lines)


def padded(text: str, width: int, right: bool = False) -> str:
    """The text and spaces behind it, or before it, which are that wide on a terminal."""
    spaces = " " * (width - shown_width(text))
    return spaces + text if right else text + spaces


def shown_width(text: str) -> int:
    """The columns that a text takes on a terminal: two for each sign of East Asian scripts."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # not at the top: a listing seldom needs it

    return cell_len(text)


def html_table(rows: Sequence[Sequence[str]], heading: str = "", note: str = "") -> str:
    """The same below a heading and a note; the first row has the columns' heads. All is escaped."""
    found = f"<p><b>{html.escape(heading)}</b><br>{html.escape(note)}</p>" if heading else ""
    for number, row in enumerate(rows):
        tag = "td" if number else "th"
        cells = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
        found += f"<tr>{cells}</tr>" if number else f"<table><tr>{cells}</tr>"
    return found + "</table>" * bool(rows)
