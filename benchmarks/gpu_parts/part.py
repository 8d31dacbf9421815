"""What a part is given, and how it writes down what it finds, case by case."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.machine import available_cores

Found = Mapping[str, Any]
"""Column → value; a number's unit is in the column's name."""

_T = TypeVar("_T")

TINY: dict[str, object] = {
    "backbone": "test_resnet",
    "projector": "mlp:layers=2,hidden_dim=32,out_dim=32",
    "predictor": "mlp:hidden_dim=8",
    "data.image_size": 16,
    "data.workers": 0,
    "training.batch_size": 64,
    "evaluation.baselines": False,
    "evaluation.rank_samples": 64,
}
"""What makes a run of `digits` small enough to rehearse with."""


class Skipped(Exception):
    """The case cannot be measured here; the text says why."""


class Part:
    """One part of the measurement, in a process of its own.

    Args:
        folder: where it may write, and what it found is kept (`cases.json`).
        ends: when it has to be done, by `time.monotonic()`, which processes share.
        rehearsal: on the CPU at tiny sizes, to find mistakes and no figures.
        fashion: the folder of Fashion-MNIST's shards, or None.
    """

    def __init__(
        self, folder: Path, ends: float, rehearsal: bool, fashion: Path | None = None
    ) -> None:
        self.folder, self.rehearsal, self.fashion = folder, rehearsal, fashion
        self.device = torch.device("cpu" if rehearsal else "cuda")
        self.cores = 2 if rehearsal else available_cores()
        self.threads = 1 if rehearsal else self.cores
        torch.set_num_threads(self.threads)
        self._ends = ends
        self._cases: dict[str, dict[str, Any]] = {}

    @property
    def left(self) -> float:
        """Seconds until the part has to be done."""
        return self._ends - time.monotonic()

    def pick(self, measured: _T, rehearsed: _T) -> _T:
        """A size: that of the measurement, or of the rehearsal."""
        return rehearsed if self.rehearsal else measured

    def recipe(
        self, preset: str = "digits", *, tiny: bool | None = None, **settings: object
    ) -> Recipe:
        """A recipe on the part's device.

        Args:
            preset: its start.
            tiny: with a network for the rehearsal (`TINY`); by default in a rehearsal.
            settings: keys with `__` for dots; they take precedence.
        """
        small = TINY if (self.rehearsal if tiny is None else tiny) else {}
        base = {"training.device": str(self.device), "training.threads": self.threads}
        stated = {name.replace("__", "."): value for name, value in settings.items()}
        return Recipe.make(preset, None, base | small | stated)

    def case(self, name: str, work: Callable[[], Found], *, needs: float = 0.0) -> None:
        """Find one thing out. What it meets on the way is written down, and the next one begins.

        Args:
            name: of the case.
            work: gives the figures; raises Skipped where it cannot be measured here.
            needs: seconds that it takes; it is left out where fewer are left.
        """
        if self.left < needs:
            self.note(name, {"skipped": f"{self.left:.0f} s were left of the part's time"})
            return
        try:
            self.note(name, dict(work()))
        except Skipped as reason:
            self.note(name, {"skipped": str(reason)})
        except Exception as error:
            traceback.print_exception(error)
            self.note(name, {"failed": end_of("".join(traceback.format_exception(error)))})
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def found(self, name: str) -> Found:
        """What a case has found."""
        return self._cases[name]

    def note(self, name: str, found: Found) -> None:
        """Keep what was found, so that nothing is lost if the part does not come to its end."""
        self._cases[name] = dict(found)
        path = self.folder / "cases.json"
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(self._cases), "utf-8")
        os.replace(beside, path)
        print(f"{name}: {found}", file=sys.stderr, flush=True)


def end_of(text: str, lines: int = 12) -> str:
    """The last lines of a traceback or a log."""
    return "\n".join(text.strip().splitlines()[-lines:])
