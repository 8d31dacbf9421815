"""What each dependency costs, in megabytes and in milliseconds to import; what a command costs.

    python benchmarks/budget.py [REPEATS]

A dependency's megabytes are those of its own files, bytecode left out; its time is the median of
REPEATS (3) processes that import it and nothing else, with a warm file cache, less that of one that
imports nothing. The ratio is of the whole process to `python -c pass`. So torch's time is in that
of each package that imports torch. Commands are measured in the same way.
"""

from __future__ import annotations

import os
import sys
import tempfile
from importlib.metadata import distribution, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from shared.rows import row
from startup import median

HOST = "simsiam-zoo"
COMMANDS = (
    ("import simsiam_zoo", ["-c", "import simsiam_zoo"]),
    ("simsiam-zoo list", ["-m", "simsiam_zoo", "list"]),
    ("simsiam-zoo train --help", ["-m", "simsiam_zoo", "train", "--help"]),
)


def needed(name: str) -> list[str]:
    """The packages that it asks for on this system, extras left out."""
    stated = map(Requirement, requires(name) or [])
    here = [each for each in stated if each.marker is None or each.marker.evaluate({"extra": ""})]
    return [canonicalize_name(each.name) for each in here]


def with_all(name: str, seen: set[str]) -> set[str]:
    """The package and all that it brings along."""
    if name not in seen:
        seen.add(name)
        for each in needed(name):
            with_all(each, seen)
    return seen


def megabytes(name: str) -> float:
    """Of the package's own files."""
    files = [each.locate() for each in distribution(name).files or []]
    kept = [file for file in map(Path, files) if "__pycache__" not in file.parts]
    return sum(file.stat().st_size for file in kept if file.is_file()) / 1e6


def module_of(name: str) -> str:
    """What is imported of it: the module of its name, else the first one that is no private one."""
    tops = [
        top
        for top, names in packages_distributions().items()
        if name in map(canonicalize_name, names) and top.isidentifier() and top[0] != "_"
    ]
    own = name.replace("-", "_")
    return own if own in tops else min(tops)


def main(repeats: int = 3) -> None:
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"PYTHONPYCACHEPREFIX": str(Path(folder, "bytecode"))}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        bare = median(["-c", "pass"], env, repeats)
        against = f"python -c pass {1e3 * bare:.0f} ms"
        for name, arguments in COMMANDS:
            taken = median(arguments, env, repeats)
            row(name, f"{1e3 * (taken - bare):.0f} ms", against, taken / bare)
        for name in sorted(needed(HOST), key=megabytes, reverse=True):
            module = module_of(name)
            taken = median(["-c", f"import {module}"], env, repeats)
            cost = f"{megabytes(name):.1f} MB, {1e3 * (taken - bare):.0f} ms"
            row(name, cost, against, taken / bare)
    everything = with_all(HOST, set()) - {HOST}
    total = sum(map(megabytes, everything))
    row("all that is installed with it", f"{total:,.0f} MB, {len(everything)} packages")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
