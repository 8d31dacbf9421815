"""Some minutes on a GPU, turned into facts: `docs/performance-gpu.md` and a JSON beside it.

    python benchmarks/gpu.py [--rehearse] [--only PART,...] [--minutes 22] [--fashion FOLDER]
                             [--out DOCS]

Each part runs in a process of its own with its own time limit, so that one that fails, hangs or
runs out of memory leaves the others; what it had found until then is kept, and the page has the end
of its traceback. `--rehearse` runs every part on the CPU at tiny sizes, two at a time. Exits with 1
if anything failed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from gpu_parts.table import page
from shared.apart import ROOT, commit, now, run_limited, told_by, versions, write_pages

NAME = "performance-gpu"
COMMIT_FILE = "COMMIT"  # what `gpu_wheels.sh` leaves beside the data, for where there is no git


class Planned(NamedTuple):
    """A part, and the seconds that it may take."""

    name: str
    title: str
    seconds: float


PARTS = (
    Planned("tests", "The tests that need a GPU", 120),
    Planned("losses", "Losses of the first steps against the CPU's", 40),
    Planned("resume", "Runs that are killed, stopped and resumed", 90),
    Planned("step", "What a step waits for; --compile", 80),
    Planned("speed", "Images/s and memory", 130),
    Planned("views", "Views made by workers and by the device", 110),
    Planned("protocols", "kNN and the linear grid at 200,000 x 2,048", 70),
    Planned("inputs", "Views of two sizes; images of five channels", 120),
    Planned("runs", "Runs of presets, a change in the middle, protocols that train", 120),
    Planned("vit", "A ViT on Fashion-MNIST: the base of the study `vit`", 300),
    Planned("fashion", "Fashion-MNIST: base, no stop-gradient, no predictor", 240),
)
"""The last one gets what is left."""

OF_FASHION = ("vit", "fashion")
SLOWER = 4  # a machine to rehearse on may be, and busy with something else
LEAST = 10.0  # seconds with which a part is begun


def main() -> None:
    """Run the parts, in processes of their own."""
    options = arguments()
    if options.part:
        run_part(options)
        return
    refuse_what_is_missing(options)
    out, began = Path(options.out), time.monotonic()
    results: dict[str, Any] = {
        "format": 1,
        "rehearsal": options.rehearse,
        "machine": machine(options.rehearse),
        "parts": {},
    }
    of_earlier = found_earlier(out, results)
    done = {"commit": commit() or noted(options.fashion), "date": now()}
    with tempfile.TemporaryDirectory(prefix="simsiam-zoo-gpu-") as name:
        folder = Path(name)
        fashion = Fashion(options.fashion, folder, options.rehearse)
        chosen = [part for part in PARTS if part.name in options.only]

        def work(part: Planned) -> None:
            left = 60 * options.minutes - (time.monotonic() - began)
            if part.name in OF_FASHION:
                fashion.wait(left)
            limit = SLOWER * part.seconds if options.rehearse else min(part.seconds, left)
            found = results["parts"][part.name]
            found |= run_apart(part, limit, options, folder, fashion.folder)
            print(f"{part.name}: {found['state']}, {found['seconds']:.0f} s", flush=True)
            write(out, results)

        # In the order of the parts, however they end.
        for part in PARTS:
            waiting = {"title": part.title, "state": "not run", "cases": {}, "error": ""}
            if part in chosen:
                results["parts"][part.name] = (
                    waiting | done | {"seconds": 0.0, "limit": part.seconds}
                )
            elif part.name in of_earlier:
                results["parts"][part.name] = of_earlier[part.name]
        with ThreadPoolExecutor(2 if options.rehearse else 1) as threads:
            list(threads.map(work, chosen))
    failed = [part.name for part in chosen if not is_well(results["parts"][part.name])]
    print(f"{out / NAME}.md; {'failed: ' + ', '.join(failed) if failed else 'nothing failed'}")
    sys.exit(1 if failed else 0)


def arguments() -> argparse.Namespace:
    """The command line."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(description="Measure this project on a GPU.")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, at tiny sizes")
    parser.add_argument("--only", default=",".join(names), help="parts, by default all of these")
    parser.add_argument("--minutes", type=float, default=22.0, help="for all of it")
    parser.add_argument("--fashion", type=Path, help="a folder that holds Fashion-MNIST")
    parser.add_argument("--out", default=str(ROOT / "docs"), help="the folder for the results")
    parser.add_argument("--fail", default="", help="a part that is made to fail")
    parser.add_argument("--hang", default="", help="a part that is made to hang")
    parser.add_argument("--part", choices=names, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ends", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.only = options.only.split(",")
    for name in {*options.only, options.fail, options.hang} - {*names, ""}:
        parser.error(f"there is no part {name!r}; there are {', '.join(names)}")
    if options.fashion is not None and not options.fashion.is_dir():
        parser.error(f"--fashion {options.fashion}: there is no such folder")
    return options


def refuse_what_is_missing(options: argparse.Namespace) -> None:
    """End with a clear message where a package is missing or too old, or there is no GPU."""
    lacking = "benchmarks/gpu_wheels.sh prepares what a machine lacks."
    try:
        from simsiam_zoo.runtime.machine import unmet_requirements

        unmet = unmet_requirements()
    except ImportError as error:
        sys.exit(f"{error}\n{lacking}")
    if unmet:
        sys.exit("\n".join([*unmet, lacking]))
    if not options.rehearse:
        import torch  # a rehearsal leaves it to the parts

        if not torch.cuda.is_available():
            sys.exit("torch sees no CUDA device; --rehearse runs every part on the CPU, tiny.")
    Path(options.out).mkdir(parents=True, exist_ok=True)


def found_earlier(out: Path, results: dict[str, Any]) -> dict[str, Any]:
    """The parts that are in the folder from an earlier go on such a machine."""
    path = out / f"{NAME}.json"
    if not path.is_file():
        return {}
    earlier: dict[str, Any] = json.loads(path.read_text("utf-8"))
    alike = all(earlier[key] == results[key] for key in ("format", "rehearsal", "machine"))
    return earlier["parts"] if alike else {}


def machine(rehearsal: bool) -> dict[str, str]:
    """Where and with what it is measured."""
    from simsiam_zoo.runtime.machine import available_cores

    facts = {"card": "none: a rehearsal on the CPU"}
    if not rehearsal:
        import torch

        about = torch.cuda.get_device_properties(0)
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        facts = {
            "card": f"{about.name}, {about.total_memory / 2**30:.0f} GiB",
            "driver": told_by(asked) or "unknown",
            "CUDA, cuDNN": f"{torch.version.cuda}, {torch.backends.cudnn.version()}",
        }
    facts |= {
        "cores": str(available_cores()),
        "python": platform.python_version(),
        "torch, torchvision, timm": versions("torch", "torchvision", "timm"),
        "OpenCV, numpy": versions("opencv-python-headless", "numpy"),
    }
    return facts


def noted(fashion: Path | None) -> str:
    """The commit that was noted beside the data."""
    file = fashion.parent / COMMIT_FILE if fashion else ROOT / COMMIT_FILE
    return file.read_text().strip() if file.is_file() else "unknown"


class Fashion:
    """The folder of Fashion-MNIST's shards; originals are packed beside the first parts.

    Args:
        given: holds shards, or the data set as it is downloaded; None: there is none.
        work: a folder for the shards.
        rehearsal: a few images are enough; shards, which hold all, are left alone.
    """

    def __init__(self, given: Path | None, work: Path, rehearsal: bool) -> None:
        packed = given is not None and any(given.glob("train-*.tar"))
        self.folder = None if packed and rehearsal else given
        self._packing: subprocess.Popen[bytes] | None = None
        if given is not None and not packed:
            self.folder = work / "fashion-shards"
            command = [sys.executable, "-m", "simsiam_zoo", "pack", "--quiet"]
            command += ["--limit", "600"] if rehearsal else []
            self._packing = subprocess.Popen([*command, str(given), str(self.folder)])

    def wait(self, seconds: float) -> None:
        """Until they are packed. What goes wrong is told by the part that reads them."""
        if self._packing is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._packing.wait(timeout=max(0.0, seconds))


def run_apart(
    part: Planned, limit: float, options: argparse.Namespace, work: Path, fashion: Path | None
) -> dict[str, Any]:
    """A part in a process of its own, and in its own group, which ends with it."""
    folder = work / part.name
    folder.mkdir()
    if limit < LEAST:
        return {"state": f"not run: {limit:.0f} s were left", "limit": limit}
    command = [sys.executable, __file__, "--part", part.name, "--work", str(folder)]
    # It ends a little before this process would end it: by itself.
    command += ["--ends", str(time.monotonic() + limit - 3), "--fail", options.fail]
    command += ["--hang", options.hang]
    command += ["--rehearse"] if options.rehearse else []
    command += ["--fashion", str(fashion)] if fashion and part.name in OF_FASHION else []
    found = run_limited(command, limit, folder / "log.txt")
    cases = folder / "cases.json"
    found["cases"] = json.loads(cases.read_text("utf-8")) if cases.is_file() else {}
    return found


def run_part(options: argparse.Namespace) -> None:
    """What the process of a part does."""
    if options.part == options.fail:
        raise RuntimeError(f"the part {options.part} was made to fail")
    if options.part == options.hang:
        child = subprocess.Popen(["sleep", "600"])
        (options.work / "child").write_text(str(child.pid))
        child.wait()
    from gpu_parts.part import Part

    module = importlib.import_module(f"gpu_parts.{options.part}")
    module.run(Part(options.work, options.ends, options.rehearse, options.fashion))


def is_well(part: dict[str, Any]) -> bool:
    """Whether a part was done, or time alone was missing, and none of its cases failed."""
    failed = any("failed" in case for case in part["cases"].values())
    return not failed and not part["state"].startswith(("failed", "out of time"))


def write(out: Path, results: dict[str, Any]) -> None:
    """The JSON and the page."""
    write_pages(out, NAME, results, page(results))


if __name__ == "__main__":
    main()
