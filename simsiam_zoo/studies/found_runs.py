"""The runs below some folders, from their files alone: nothing is imported or built for it.

The files may be other people's or damaged: what they hold is taken where it has the right type, and
a run that cannot be read is one that failed, with the reason.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simsiam_zoo.errors import InputError, StoppedError
from simsiam_zoo.metrics import TRAINED, finite, is_called, read_rows
from simsiam_zoo.recipe.layers import COMPONENTS, flat
from simsiam_zoo.runtime.folders import is_held

RUNNING, RESUMABLE, COMPLETE, FAILED = "running", "resumable", "complete", "failed"
IMPORTED = "imported"
"""States of a run: `imported` are weights from elsewhere, which have no result."""

_DEEPEST = 8  # folders below the one that was named
_TAIL = 1 << 14  # bytes of metrics.jsonl that are read for the newest row
_LARGEST = 1 << 26  # bytes of a JSON file that is read


class Score(BaseModel):
    """A figure in a run's files: a protocol's top-1 of one network, as a share."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    network: str = TRAINED
    protocol: str
    protocol_version: int = 0
    top1: float
    top1_interval: tuple[float, float] | None = None
    test_images: int


class Figure(Score):
    """A score of a run's trained network.

    `test`: the digest of the images that were predicted; `right`: which of them were classified
    right, as `evaluation.evaluate.right_images` writes it. Both are None where that is not known.
    """

    measured_on: str = "test"
    test: str | None = None
    right: str | None = Field(None, repr=False)

    def correct(self) -> Any:
        """[N] bool, one for each test image; None where it is not known."""
        import numpy as np  # not at the top: a listing does not need it

        if self.right is None:
            return None
        with suppress(ValueError):
            bits = np.frombuffer(base64.b64decode(self.right, validate=True), np.uint8)
            found = np.unpackbits(bits).astype(bool)[: self.test_images]
            share = round(float(found.mean()), 6)
            if len(found) == self.test_images and share == round(self.top1, 6):
                return found
        return None


@dataclass(frozen=True)
class FoundRun:
    """A run's folder, and what its files say. `changed`: when it last wrote, in seconds."""

    folder: Path
    keys: Mapping[str, Any]
    result: Mapping[str, Any]
    state: str
    why: str | None
    changed: float

    @property
    def verdict(self) -> str | None:
        """None where the run is not complete."""
        return str(self.result["verdict"]) if self.result else None

    @property
    def measured_on(self) -> str:
        """`test` or `validation` images."""
        return str(self.result.get("measured_on", "test"))

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """By protocol: what the run ended with, and what a study measured after it."""
        found = _figures(self.result, {"measured_on": self.measured_on})
        if self.folder.name == "run":
            found |= _of_report(read_json(self.folder.parent / "figures.json"))
        return found

    def recorded(self) -> dict[str, Figure]:
        """As `figures`, with what `evaluate` measured on the same images; `right` where known."""
        found: dict[str, Figure] = {}
        for path in sorted((self.folder / "evaluations").glob("*.json"), key=_number):
            report = read_json(path)
            data = report.get("data")
            digests = (data.get("train"), data.get("test")) if isinstance(data, dict) else ()
            same = hashlib.sha256(" ".join(map(str, digests)).encode()).hexdigest()[:16]
            # Not of other data, nor of a checkpoint on the way.
            if same == self.data[0] and not str(report.get("source")).endswith(".pt"):
                found |= _of_report(report)
        found |= _of_report(read_json(self.folder / "correct.json"))
        return self.figures | {name: figure for name, figure in found.items() if figure.right}

    def figure(self, word: str) -> Figure | None:
        """The figure of a protocol: `knn`, `knn k=200` or its whole text; the first that fits."""
        return next((f for name, f in self.figures.items() if is_called(name, word)), None)

    def value(self, key: str) -> Any:
        """What is listed or asked by: a field, a figure in per cent, a recipe's key; else None."""
        if key in ("state", "verdict", "measured_on"):
            return getattr(self, key)
        if key in ("name", "folder"):
            return str(self.folder)
        if key == "age":
            return time.time() - self.changed
        key = f"{key}.name" if key in COMPONENTS else key
        if key in self.keys:
            return self.keys[key]
        found = self.figure(key)
        return None if found is None else 100 * found.top1

    @cached_property
    def lock(self) -> dict[str, Any]:
        """What `lock.toml` holds; empty where it cannot be read."""
        return _read_toml(self.folder / "lock.toml")

    @property
    def data(self) -> tuple[Any, ...]:
        """What tells the images that it was measured on from others."""
        digest = self.lock.get("data")
        digest = digest.get("digest") if isinstance(digest, dict) else None
        return digest, self.measured_on, self.keys.get("data.validation")


def find_runs(folders: Iterable[Path]) -> list[FoundRun]:
    """The runs in or below the folders, newest first. InputError: there is no such folder."""
    found: dict[Path, FoundRun] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}", "Name a folder that holds runs.")
        for path in _run_folders(folder, _DEEPEST):
            found.setdefault(path.resolve(), read_run(path))
    return sorted(found.values(), key=lambda run: (-run.changed, str(run.folder)))


def named_run(text: str) -> FoundRun:
    """The run that a user named: its folder, a study's job, or its name in `runs`."""
    for folder in (Path(text), Path("runs") / text):
        for path in (folder, folder / "run"):
            if _is_run(path):
                return read_run(path)
    hint = "A run's folder holds a recipe.toml. `simsiam-zoo runs` lists the runs."
    if (Path(text) / "study.json").is_file():
        hint = f"It is a study's: simsiam-zoo runs {shlex.quote(text)} lists its runs."
    raise InputError(f"there is no run in {text}", hint)


def read_run(folder: Path) -> FoundRun:
    """What a run's folder says."""
    damage: list[str] = []
    keys, result = {}, {}
    try:
        keys = flat(tomllib.loads((folder / "recipe.toml").read_text("utf-8")), whole=())
    except (OSError, ValueError, RecursionError) as error:
        damage.append(f"recipe.toml cannot be read: {error}")
    if (folder / "result.json").exists():
        result = read_json(folder / "result.json")
        if not isinstance(result.get("verdict"), str):
            result = {}
            damage.append("result.json is damaged")
    state, why = _state(folder, result, damage)
    return FoundRun(folder, keys, result, state, why, _last_change(folder))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    with suppress(OSError, ValueError, RecursionError):
        if path.stat().st_size <= _LARGEST:
            value = json.loads(path.read_bytes())
            return value if isinstance(value, dict) else {}
    return {}


def progress_of(run: FoundRun) -> str:
    """`epoch 3/20` of a run that is not complete; empty where it has not begun."""
    rows = read_rows(run.folder / "metrics.jsonl", _TAIL)
    if not rows:
        return ""
    epoch = int(finite(rows[-1].get("epoch")) or 0)
    return f"epoch {epoch}/{run.keys.get('training.epochs', '?')}"


def common_folder(folders: Sequence[Path]) -> Path:
    """The innermost folder that all of these are or lie in."""
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # none, or some are told from the root and others are not
        return Path()


def short_name(run: FoundRun, common: Path) -> str:
    """A run's folder below the common one; of a study's run the job's."""
    path = run.folder
    if path.name == "run" and path.parent != common:
        path = path.parent
    return str(path.relative_to(common) if path.is_relative_to(common) else path)


def age(seconds: float) -> str:
    """`43 s`, `12 min`, `5 h`, `3 d`."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _run_folders(folder: Path, depth: int) -> Iterator[Path]:
    if _is_run(folder):
        yield folder
        return
    entries: list[os.DirEntry[str]] = []
    with suppress(OSError), os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries if depth else ():
        if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
            yield from _run_folders(folder / entry.name, depth - 1)


def _is_run(folder: Path) -> bool:
    """A recipe alone is a job that has not begun; a run has a lock as well."""
    return (folder / "lock.toml").is_file() and (folder / "recipe.toml").is_file()


def _state(
    folder: Path, result: Mapping[str, Any], damage: Sequence[str]
) -> tuple[str, str | None]:
    """(state, why it failed)."""
    if damage:
        return FAILED, " ".join("; ".join(damage).split())
    if result:
        return COMPLETE, None
    if is_held(folder / ".lock"):
        return RUNNING, None
    status = read_json(folder.parent / "status.json") if folder.name == "run" else {}
    if status.get("error") and status.get("exit_code") != StoppedError.exit_code:
        return FAILED, " ".join(str(status["error"]).split())
    if any((folder / "checkpoints").glob("*.pt")):
        return IMPORTED if "imported" in _read_toml(folder / "lock.toml") else RESUMABLE, None
    return FAILED, "it ended before its first checkpoint"


def _last_change(folder: Path) -> float:
    for name in ("result.json", "metrics.jsonl", "recipe.toml"):
        with suppress(OSError):
            return (folder / name).stat().st_mtime
    return 0.0


def _read_toml(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError):
        return tomllib.loads(path.read_text("utf-8"))
    return {}


def _of_report(report: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures of a report of `evaluate`, or of `correct.json`."""
    data = report.get("data")
    return _figures(report, data if isinstance(data, dict) else {})


def _figures(report: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Figure]:
    rows = report.get("figures")
    about = {key: data[key] for key in ("measured_on", "test") if key in data}
    found = {}
    for row in rows if isinstance(rows, list) else ():
        with suppress(ValidationError, TypeError):
            figure = Figure.model_validate({**row, **about})
            if figure.network == TRAINED:
                found[figure.protocol] = figure
    return found


def _number(path: Path) -> int:
    return int(path.stem) if path.stem.isdecimal() else -1
