"""How long `simsiam-zoo` takes to say what there is, as against an interpreter that does nothing.

    python benchmarks/startup.py [REPEATS]

The median of REPEATS (10) runs with a warm file cache, in milliseconds, and its ratio to `python -c
pass` in the same environment, with bytecode as pip leaves it. The goal for `list` with all packages
of plugins/ is 8. `swish-zoo` is the test suite's third-party plugin, built as a wheel
and installed into a temporary folder.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

from shared.rows import row

SWISH = Path(__file__).parents[1] / "tests" / "fixtures" / "swish-zoo"


def install(source: Path, folder: str) -> str:
    """Build `source` as a wheel and install it below `folder`; its place, for PYTHONPATH."""
    (wheel,) = WheelBuilder(str(source)).build(directory=folder)
    target = str(Path(folder, "site"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--target", target, wheel], check=True)
    return target


def median(arguments: list[str], env: dict[str, str], repeats: int) -> float:
    """Median wall time in seconds, after one run that warms the file cache."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], env=env, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main(repeats: int = 10) -> None:
    zoo = ["-m", "simsiam_zoo"]
    with tempfile.TemporaryDirectory() as folder:
        plain = os.environ | {"PYTHONPYCACHEPREFIX": str(Path(folder, "bytecode"))}
        plain.pop("PYTHONDONTWRITEBYTECODE", None)
        swish = plain | {"PYTHONPATH": install(SWISH, folder)}
        base = median(["-c", "pass"], plain, repeats)
        against = f"python -c pass {1e3 * base:.0f} ms"
        for name, arguments, env in (
            ("simsiam-zoo --help", [*zoo, "--help"], plain),
            ("simsiam-zoo list", [*zoo, "list"], plain),
            ("simsiam-zoo list backbones 'conv*'", [*zoo, "list", "backbones", "conv*"], plain),
            ("simsiam-zoo plugin list", [*zoo, "plugin", "list"], plain),
            ("simsiam-zoo list, with swish-zoo", [*zoo, "list"], swish),
        ):
            taken = median(arguments, env, repeats)
            goal = "<= 8" if name == "simsiam-zoo list" else ""
            row(name, f"{1e3 * taken:.0f} ms", against, taken / base, goal)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
