"""Plain text in columns, as wide as the terminal."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

import click

_NARROWEST = 16  # below this, a column of words is worse than a line that runs over the edge


def print_heading(text: str) -> None:
    """A line in bold, where that is wanted and can be shown."""
    _echo(click.style(printable(text), bold=True))


def print_line(text: str = "") -> None:
    """Print a text on stdout, without the control characters that are in it."""
    _echo(printable(text))


def printable(text: str) -> str:
    """The text without control characters but line breaks: names and titles are other people's."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


def _echo(text: str) -> None:
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], indent: int = 2) -> str:
    """A table of figures: names to the left in the first column, figures to the right in others."""
    cells = [[_clean(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )
    return "\n".join((" " * indent + line).rstrip() for line in lines)


def columns(rows: Sequence[Sequence[str]], wrap: int, indent: int = 2) -> list[str]:
    """Each row as a text with aligned columns; column `wrap` takes the width that others leave.

    On a terminal that column is wrapped within its own width. In a pipe each row is one line,
    however long, so that `grep` finds all of it.
    """
    cells = [[_clean(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if (terminal := _terminal_width()) is not None:
        others = indent + sum(widths) - widths[wrap] + 2 * (len(widths) - 1)
        widths[wrap] = min(widths[wrap], max(terminal - others, _NARROWEST))
    return [_row(row, widths, wrap, indent) for row in cells]


def _row(cells: list[str], widths: list[int], wrap: int, indent: int) -> str:
    width = max(widths[wrap], 1)
    # A name with hyphens stays whole: it is there to be copied.
    first, *rest = [cells[wrap]]
    if len(first) > width:  # wrapping takes ten times as long as all the rest of a row
        first, *rest = textwrap.wrap(first, width, break_on_hyphens=False)
    lines = [[*cells[:wrap], first, *cells[wrap + 1 :]]]
    lines += [[*[""] * wrap, text] for text in rest]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False))
        for line in lines
    )
    return "\n".join((" " * indent + line).rstrip() for line in padded)


def _terminal_width() -> int | None:
    """The terminal's width; None in a pipe whose reader set no COLUMNS."""
    if not sys.stdout.isatty() and not os.environ.get("COLUMNS"):
        return None
    return shutil.get_terminal_size().columns


def _clean(text: str) -> str:
    """One line: a plugin may have put anything into its texts."""
    return printable(" ".join(text.split()))
