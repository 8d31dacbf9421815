"""`make figures`: train what the method packages' READMEs report, and write it there.

A package's figures.toml is a study. `simsiam-zoo ablate` runs it in runs/figures/PACKAGE, goes on
where it was interrupted, and its results take the place of what stands between the two marks in the
package's README. About five minutes of one core for each arm and seed.

    python plugins/figures.py [PACKAGE ...]
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

PLUGINS = Path(__file__).parent
RUNS = Path("runs") / "figures"
BEGIN, END = "<!-- make figures -->", "<!-- end of figures -->"

PROTOCOLS = ("knn (k=20, t=0.1)", "logistic (C=1)")
"""Those of the preset mnist-5k that a README shows."""


def main(names: list[str]) -> None:
    """Run the studies of the packages, all that have one by default."""
    packages = sorted(path.parent for path in PLUGINS.glob("*/figures.toml"))
    unknown = set(names) - {package.name for package in packages}
    if unknown:
        sys.exit(f"no figures.toml in {', '.join(sorted(unknown))}")
    for package in packages:
        if not names or package.name in names:
            study, out = package / "figures.toml", RUNS / package.name
            command = ["ablate", str(study), "--out", str(out)]
            subprocess.run([sys.executable, "-m", "simsiam_zoo", *command], check=True)
            results = json.loads((out / "results.json").read_text())
            write(package / "README.md", render(results))


def render(results: dict[str, Any]) -> str:
    """What a README says of a study: a table, and what it was measured with."""
    seeds = " and ".join(", ".join(map(str, results["seeds"])).rsplit(", ", 1))
    tune = results["tune"]
    lines = [
        f"| | seeds | kNN | logistic | effective rank | verdict |{' chosen |' if tune else ''}",
        f"| --- | ---: | ---: | ---: | ---: | --- |{' --- |' if tune else ''}",
    ]
    empty = "| | |" + " |" * bool(tune)
    for arm in results["arms"]:
        summary = arm["summary"]
        figures = [percent(summary["metrics"].get(protocol)) for protocol in PROTOCOLS]
        verdicts = ", ".join(f"{n} {verdict}" for verdict, n in summary["verdicts"].items())
        rank = summary["effective_rank"]
        shown = "" if rank is None else f"{rank['mean']:.0f}"
        cells = [arm["label"], str(summary["done"]), *figures, shown, verdicts]
        cells += [chosen(arm)] if tune else []
        lines.append(f"| {' | '.join(cells)} |")
    untrained = [mean(results, protocol, "untrained") for protocol in PROTOCOLS]
    pixels = [mean(results, protocol, "raw pixels") for protocol in PROTOCOLS]
    lines.append(f"| untrained network | | {untrained[0]} | {untrained[1]} {empty}")
    lines.append(f"| raw pixels | | {pixels[0]} | {pixels[1]} {empty}")
    software, machine = results["provenance"]["software"], results["provenance"]["machine"]
    measured = (
        f"Top-1 in per cent on the 1,000 test images of `mnist-5k`, mean ± standard deviation over"
        f" seeds {seeds}; kNN has k = 20. Measured by `make figures` with torch"
        f" {software['torch']}, {machine['precision']}, on one thread of"
        f" {machine['device_name']} a run."
    )
    if tune:
        grid = ", ".join(f"`{key}` of {listed(values)}" for key, values in tune["grid"].items())
        measured += (
            f" Each arm was tuned alike, {grid}, on {100 * tune['validation']:g} % of the training"
            " images; no test image was read for that."
        )
    return "\n".join([*lines, "", *textwrap.wrap(measured, 100)])


def chosen(arm: dict[str, Any]) -> str:
    """The values that were tuned for an arm; an edge of what was tried is marked."""
    return ", ".join(
        f"{key.rpartition('.')[2]} {value}{' (edge)' if key in arm['at_edge'] else ''}"
        for key, value in (arm["chosen"] or {}).items()
    )


def listed(values: list[Any]) -> str:
    """`0.5, 1 or 2`."""
    return " or ".join(", ".join(f"{value:g}" for value in values).rsplit(", ", 1))


def percent(summary: dict[str, Any] | None) -> str:
    """A mean over seeds with its standard deviation."""
    if summary is None:
        return ""
    std = "" if summary["std"] is None else f" ± {100 * summary['std']:.1f}"
    return f"{100 * summary['mean']:.1f}{std}"


def mean(results: dict[str, Any], protocol: str, network: str) -> str:
    """Of all runs, what a network that was not trained has."""
    found = [
        run["baselines"][network][protocol]
        for arm in results["arms"]
        for run in arm["runs"]
        if protocol in (run["baselines"] or {}).get(network, {})
    ]
    return f"{100 * sum(found) / len(found):.1f}" if found else ""


def write(readme: Path, text: str) -> None:
    """Put `text` between the README's two marks."""
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{readme} has no marks {BEGIN} and {END} to write between")
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


if __name__ == "__main__":
    main(sys.argv[1:])
