"""The lines of a CPU benchmark: printed for people, and kept for the page of `cpu.py`."""

from __future__ import annotations

import json
import os
from pathlib import Path

KEPT_IN = "SIMSIAM_ZOO_BENCH_ROWS"
"""Environment variable: a file that each row is appended to, as a line of JSON."""


def row(
    what: str, found: str, against: str = "", ratio: float | None = None, goal: str = ""
) -> None:
    """One finding.

    Args:
        what: was measured.
        found: the figure with its unit.
        against: the reference of the same run, with its unit.
        ratio: of the two, so that more is better, or as `goal` says.
        goal: what the ratio or the figure should be.
    """
    shown = "" if ratio is None else f"{ratio:.3g} x"
    told = f"  (goal {goal})" if goal else ""
    print(f"{what:<52} {found:<28} {against:<28} {shown:>8}{told}", flush=True)
    if path := os.environ.get(KEPT_IN):
        kept = {"what": what, "found": found, "against": against, "ratio": ratio, "goal": goal}
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(kept) + "\n")
