"""Commands of simsiam-zoo, each a process beside the others."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gpu_parts.part import Part, end_of
from simsiam_zoo.recipe import Recipe

SIMSIAM_ZOO = ("-m", "simsiam_zoo")


class Command:
    """A command that has been started; what it prints is in files of the part's folder.

    Args:
        part: whose folder it writes to, and whose time it has.
        name: of its files.
        arguments: of the command line.
        python: what Python is told to run.
    """

    def __init__(
        self, part: Part, name: str, *arguments: str, python: tuple[str, ...] = SIMSIAM_ZOO
    ) -> None:
        self.part, self.name, self._began = part, name, time.monotonic()
        self._out, self._log = (part.folder / f"{name}.{end}" for end in ("out", "log"))
        with self._out.open("w") as out, self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *python, *arguments], stdout=out, stderr=log, text=True
            )

    def ends(self, at_least: float = 1.0) -> tuple[str, float]:
        """What it printed, and the seconds that it took. Raises RuntimeError where it failed."""
        code = self.process.wait(timeout=max(at_least, self.part.left))
        told = self._out.read_text("utf-8", "replace")
        if code != 0:
            log = told + self._log.read_text("utf-8", "replace")
            raise RuntimeError(f"{self.name} ended with {code}:\n{end_of(log)}")
        return told, time.monotonic() - self._began


def train(part: Part, name: str, recipe: Recipe, python: tuple[str, ...] = SIMSIAM_ZOO) -> Command:
    """Start a training run in the folder `name`."""
    file = part.folder / f"{name}.toml"
    file.write_text(recipe.to_toml(), "utf-8")
    where = ["train", "--recipe", str(file), "--out", str(part.folder / name)]
    return Command(part, name, *where, python=python)


def trained(folder: Path) -> dict[str, Any]:
    """What a run came to."""
    found = json.loads((folder / "result.json").read_text("utf-8"))
    knn = [
        each["top1"]
        for each in found["figures"]
        if each["network"] == "trained network" and each["protocol"].startswith("knn")
    ]
    evidence = found["evidence"]
    return {
        "verdict": found["verdict"],
        "kNN top-1": knn[0] if knn else "-",
        "loss": evidence["last_loss"],
        "std x sqrt(d)": evidence["std_sqrt_d"],
        "effective rank": evidence["effective_rank"],
        "training, s": found["seconds"]["training"],
        "evaluation, s": found["seconds"]["evaluation"],
        "images/s": last_speed(folder),
    }


def last_speed(folder: Path) -> float:
    """The run's own, by its last row that states it."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text("utf-8").splitlines())
    return [row["images_per_second"] for row in rows if "images_per_second" in row][-1]
