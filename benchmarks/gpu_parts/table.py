"""The page `docs/performance-gpu.md`, made from the JSON that `gpu.py` writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from shared.table import fenced, table

HEAD = """\
# Measured on a GPU

`make gpu` runs `benchmarks/gpu.py`, in at most 22 minutes on one H100, and writes this page
and `performance-gpu.json` beside it. Parts may be run in several goes (`--only`): what an earlier
one found on such a machine stays, with its date and commit."""

HOW = """\
## How to run it

    make gpu                                          # or, to choose:
    python benchmarks/gpu.py --only speed,step --minutes 4 --fashion FOLDER --out docs
    python benchmarks/gpu.py --rehearse               # every part on the CPU, tiny

`--fashion` is a folder that holds Fashion-MNIST, as shards or as it is downloaded (Debian's
`dataset-fashion-mnist` has it); without it the last part is left out. For a machine that has torch
but no network and not all that this project needs, `benchmarks/gpu_wheels.sh` prepares a folder to
carry there, and prints the commands to give there."""

NOTHING = """\
**Nothing has been measured yet**: no GPU was at hand. `python benchmarks/gpu.py --rehearse` has run
every part on a CPU, at tiny sizes."""


def page(results: Mapping[str, Any] | None) -> str:
    """All of it as Markdown; None where nothing was measured."""
    if results is None:
        return "\n\n".join([HEAD, NOTHING, HOW]) + "\n"
    blocks = [HEAD]
    if results["rehearsal"]:
        blocks.append("**A rehearsal on the CPU: the figures mean nothing.**")
    blocks.append(table([{"": key, " ": value} for key, value in results["machine"].items()]))
    for name, part in results["parts"].items():
        blocks.append(f"## {part['title']}")
        took = f"{part['state']}, {part['seconds']:.0f} s of {part['limit']:.0f}"
        blocks.append(f"`{name}`: {took}; {part['date']}, commit {part['commit']}.")
        blocks += cases(part["cases"])
        if part["error"]:
            blocks.append(fenced(part["error"]))
    return "\n\n".join([*blocks, HOW]) + "\n"


def cases(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A table for all neighbouring cases with the same columns; failures and gaps below it."""
    for kind, group in groupby(found.items(), key=lambda each: tuple(each[1])):
        rows = list(group)
        if kind == ("skipped",):
            yield "\n".join(f"- {name}: left out; {row['skipped']}" for name, row in rows)
        elif kind == ("failed",):
            for name, row in rows:
                yield f"**{name} failed:**\n\n{fenced(row['failed'])}"
        else:
            yield table([{"": name, **row} for name, row in rows])
