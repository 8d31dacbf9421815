"""Tables and blocks of text in the pages that benchmarks write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows with the same columns."""
    heads = [shown(head) for head in rows[0]]
    lines = [heads, ["---"] * len(heads)]
    lines += [[shown(value) for value in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(value: object) -> str:
    """A value in a cell."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def fenced(text: str) -> str:
    """Text as it is."""
    return f"```text\n{text.replace('```', '` ` `')}\n```"
