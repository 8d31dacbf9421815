"""What can be measured on a CPU: `docs/performance.md`, a JSON beside it, and the README's table.

    python benchmarks/cpu.py [--only PART,...] [--out FOLDER]

Each part is one of the scripts beside this one, at a size that leaves all of them within 30 minutes
on two cores, in a process of its own with its own time limit: one that fails or hangs is shown as
failed and leaves the others. Every ratio is against a reference of the same run. With `--only`,
what an earlier go on this machine found of the other parts stays. The README's table is written
where FOLDER is docs/, the default. Exits with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shared.apart import ROOT, commit, now, run_limited, versions, write_pages, write_whole
from shared.rows import KEPT_IN
from shared.table import fenced, table

NAME = "performance"
BUSY = 1.5  # load from which figures are told to be of a busy machine
BEGIN, END = "<!-- performance: written by make bench -->", "<!-- /performance -->"


class Planned(NamedTuple):
    """A part: a script and its arguments, and the seconds that it may take."""

    name: str
    title: str
    arguments: str
    seconds: float


PARTS = (
    Planned("startup", "Start of the command line", "startup.py 5", 60),
    Planned("budget", "What the dependencies cost", "budget.py 3", 150),
    Planned("plan", "Order and reader of large data sets", "plan.py 4000", 210),
    Planned("loader", "Views from JPEGs", "loader.py 3", 240),
    Planned("step", "Training", "step.py --seconds 1 --blocks 5", 600),
    Planned("linear", "Linear classifiers", "linear.py --epochs 2 --blocks 2", 300),
    Planned(
        "evaluation",
        "Evaluation",
        "evaluation.py --bank 50000 --queries 500 --images 8000",
        240,
    ),
)

IN_README = (
    ("startup", "simsiam-zoo list"),
    ("loader", "uint8 views"),
    ("step", "ResNet-18"),
    ("step", "ResNet-50 at 224"),
    ("step", "mnist-5k, resident"),
    ("step", "mnist-5k, shards"),
    ("linear", "grid"),
    ("evaluation", "knn"),
)
"""Part, and how the row begins."""

HEAD = """\
# Measured on a CPU

`make bench` runs `benchmarks/cpu.py`, in at most 30 minutes on two cores, and writes this page,
`performance.json` beside it and the README's table. Each ratio is against a reference in the same
run, since figures of two machines, or of one at two times, cannot be compared."""

LACKS = """\
## What it does not say

Nothing here is of a GPU ([measured on a GPU](performance-gpu.md)), of a cluster, or of a slow disk:
all files are in the system's cache. Sizes are small, to fit the time. [Unmeasured](unmeasured.md)
lists what nobody could try yet."""

NOTHING = "Nothing has been measured yet: `make bench` writes it here, on an idle machine."


def main(arguments: Sequence[str] | None = None, parts: Sequence[Planned] = PARTS) -> int:
    """Run the parts; the exit code."""
    names = [part.name for part in parts]
    parser = argparse.ArgumentParser(description="Measure this project on a CPU.")
    parser.add_argument("--only", default=",".join(names), help="parts, by default all of these")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="the results' folder")
    options = parser.parse_args(arguments)
    only = options.only.split(",")
    for name in sorted({*only} - {*names}):
        parser.error(f"there is no part {name!r}; there are {', '.join(names)}")
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"format": 1, "machine": machine(), "parts": {}}
    found = found_earlier(options.out, results)
    for part in parts:
        if part.name in only:
            print(f"== {part.title}: python benchmarks/{part.arguments}", flush=True)
            found[part.name] = measure(part)
            print(f"   {found[part.name]['state']}", flush=True)
            results["parts"] = {name: found[name] for name in names if name in found}
            write_pages(options.out, NAME, results, page(results))
    if options.out.resolve() == ROOT / "docs":
        readme = ROOT / "README.md"
        write_whole(readme, with_table(readme.read_text("utf-8"), results))
    failed = [name for name in only if results["parts"][name]["state"] != "done"]
    print(f"{options.out / NAME}.md; {'failed: ' + ', '.join(failed) if failed else 'all done'}")
    return 1 if failed else 0


def machine() -> dict[str, str]:
    """Where and with what it is measured."""
    from simsiam_zoo.runtime.machine import available_cores

    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    told = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
    wide = [each for each in ("avx2", "avx512_bf16", "amx_bf16") if each in told.get("flags", "")]
    return {
        "processor": told.get("model name") or platform.processor() or platform.machine(),
        "has": ", ".join(wide) or "unknown",
        "cores": str(available_cores()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "simsiam-zoo": versions("simsiam-zoo"),
        "torch, torchvision, timm": versions("torch", "torchvision", "timm"),
        "OpenCV, numpy": versions("opencv-python-headless", "numpy"),
    }


def found_earlier(out: Path, results: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that are in the folder from an earlier go on such a machine."""
    path = out / f"{NAME}.json"
    if not path.is_file():
        return {}
    earlier: dict[str, Any] = json.loads(path.read_text("utf-8"))
    alike = all(earlier[key] == results[key] for key in ("format", "machine"))
    return earlier["parts"] if alike else {}


def measure(part: Planned) -> dict[str, Any]:
    """What a part's process found, and how it ended."""
    load = os.getloadavg()[0]
    command = [sys.executable, *part.arguments.split()]
    command[1] = str(Path(__file__).parent / command[1])
    with tempfile.TemporaryDirectory(prefix="simsiam-zoo-bench-") as name:
        rows = Path(name, "rows")
        found = run_limited(command, part.seconds, Path(name, "log"), {KEPT_IN: str(rows)})
        kept = rows.read_text("utf-8").splitlines() if rows.is_file() else []
    about = {"title": part.title, "command": f"python benchmarks/{part.arguments}"}
    done = {"load": round(load, 2), "commit": commit() or "unknown", "date": now()}
    return about | done | found | {"rows": [json.loads(line) for line in kept]}


def page(results: Mapping[str, Any] | None) -> str:
    """All of it as Markdown; None where nothing was measured."""
    if results is None:
        return "\n\n".join([HEAD, NOTHING, LACKS]) + "\n"
    blocks = [HEAD, table([{"": key, " ": value} for key, value in results["machine"].items()])]
    for part in results["parts"].values():
        blocks.append(f"## {part['title']}")
        told = f"`{part['command']}`: {part['state']}, {part['seconds']:.0f} s of"
        told += f" {part['limit']:.0f}; {part['date']}, commit {part['commit']}."
        if part["load"] > BUSY:
            told += f" **The machine was busy with something else** (load {part['load']})."
        blocks.append(told)
        if part["rows"]:
            blocks.append(table([cells(row) for row in part["rows"]]))
        if part["error"]:
            blocks.append(fenced(part["error"]))
    return "\n\n".join([*blocks, LACKS]) + "\n"


def cells(row: Mapping[str, Any]) -> dict[str, object]:
    """A row of the page."""
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}"
    named = {"what": row["what"], "found": row["found"], "against": row["against"]}
    return named | {"ratio": ratio, "goal": row["goal"]}


def with_table(readme: str, results: Mapping[str, Any] | None) -> str:
    """The README with the rows of `IN_README` between its marks."""
    head, _, rest = readme.partition(BEGIN)
    rows = []
    for name, beginning in IN_README:
        part = (results or {"parts": {}})["parts"].get(name, {"rows": []})
        found = [row for row in part["rows"] if row["what"].startswith(beginning)][:1]
        rows += [{**cells(row), "repeat": f"`{part['command']}`"} for row in found]
    text = NOTHING
    if rows and results is not None:
        about, busy = results["machine"], any(p["load"] > BUSY for p in results["parts"].values())
        text = table(rows) + f"\n\n({about['cores']} cores of {about['processor']}, torch"
        text += f" {about['torch, torchvision, timm'].partition(',')[0]}"
        text += "; the machine was busy with something else.)" if busy else ".)"
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    sys.exit(main())
