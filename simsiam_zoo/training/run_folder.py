"""What a run leaves behind, in one folder.

    recipe.toml  lock.toml  metrics.jsonl  result.json  curves.svg  damaged.jsonl
    checkpoints/last.pt     backbone.safetensors

Every file is written whole or not at all, but for `metrics.jsonl` and `damaged.jsonl` (there only
if images were found damaged): those grow a line at a time and are cut back to the checkpoint when a
run resumes.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import tomli_w
from filelock import FileLock, Timeout

from simsiam_zoo.catalog import Resolved
from simsiam_zoo.data.batches import Damage
from simsiam_zoo.errors import DataError, DivergedError, InputError, PluginError
from simsiam_zoo.metrics import read_rows
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.folders import ASKED, atomic_write_text, unwritable
from simsiam_zoo.runtime.machine import restarts

MetricsRow = dict[str, Any]


class Logger(Protocol):
    """The contract of a component of the kind `logger`.

    The factory may raise PluginError, where a package is missing say, which ends the run before it
    begins. What the methods raise is told once and costs the run this logger, no more.
    """

    def start(self, folder: Path, recipe: dict[str, Any], step: int) -> None:
        """The run in `folder` begins, or goes on; `recipe` has every key, as plain nested values.

        `step` steps were done before. Rows of later steps that an interrupted run has logged come
        again, and should be dropped.
        """

    def log(self, row: dict[str, Any]) -> None:
        """A row of metrics.jsonl: `step`, `epoch` and figures, all of them finite numbers."""

    def finish(self, result: dict[str, Any]) -> None:
        """The run is complete; `result` is what result.json holds."""


class Loggers:
    """Several loggers as one; one that fails is left out from then on, and `say` is told."""

    def __init__(self, chosen: Sequence[Resolved] = (), say: Callable[[str], None] = print) -> None:
        self._say = say
        self._loggers = [(each.id, _create(each)) for each in chosen]

    def tell(self, method: Literal["start", "log", "finish"], *arguments: Any) -> None:
        """Call that method of each."""
        for named in list(self._loggers):
            name, logger = named
            try:
                getattr(logger, method)(*arguments)
            except (Exception, SystemExit) as error:  # plugin code may raise anything
                self._loggers.remove(named)
                self._say(
                    f"warning: logger {name} failed and gets no more rows"
                    f" ({type(error).__name__}: {error}); the run goes on"
                )


def _create(chosen: Resolved) -> Any:
    logger = chosen.create()
    missing = [n for n in ("start", "log", "finish") if not callable(getattr(logger, n, None))]
    if missing:
        what = " and no ".join(missing)
        raise PluginError(f"logger {chosen.id} cannot be used: it has no {what}")
    return logger


class RunFolder:
    """A run's folder, held by one process at a time. Use as a context manager.

    `path`, `recipe`, `lock` and `identity` are where and what the run is, written on `start`; the
    loggers are told all that is written here. All ranks but the first only remember.
    """

    def __init__(
        self,
        path: Path,
        recipe: Recipe,
        lock: dict[str, Any],
        identity: str,
        loggers: Loggers | None = None,
    ) -> None:
        self.path, self.recipe, self.lock, self.identity = path, recipe, lock, identity
        self.loggers, self.writes = loggers or Loggers(), distributed.rank() == 0
        self.rows: list[MetricsRow] = []
        self.damaged: dict[int, MetricsRow] = {}
        self._held: FileLock | None = None

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def __enter__(self) -> Self:
        distributed.together(lambda: self._hold() if self.writes else None)
        return self

    def __exit__(self, *_: object) -> None:
        # The file stays: once it is removed, who opened it before and who makes another hold both.
        if self._held is not None:
            self._held.release()

    def start(self) -> None:
        """Write what the run is. Raises InputError where the folder cannot be written."""
        if not self.writes:
            return
        lock = {"identity": self.identity, **self.lock}
        try:
            for left in ("metrics.jsonl", "damaged.jsonl"):  # of a start that came to no checkpoint
                (self.path / left).unlink(missing_ok=True)
            atomic_write_text(self.path / "recipe.toml", self.recipe.to_toml())
            atomic_write_text(self.path / "lock.toml", tomli_w.dumps(lock))
        except OSError as error:
            raise unwritable(self.path, error) from None
        self.loggers.tell("start", self.path, self.recipe.to_dict(), 0)

    def withdraw(self) -> None:
        """Take back what `start` wrote: the run is refused, and its folder is for another try."""
        for name in ("recipe.toml", "lock.toml") if self.writes else ():
            (self.path / name).unlink(missing_ok=True)

    def resume(self, step: int) -> None:
        """Read the metrics up to `step` and cut off what came later: it will come again."""
        self.rows = [row for row in read_metrics(self.path) if row["step"] <= step]
        self._write_anew("metrics.jsonl", self.rows)
        lines = read_rows(self.path / "damaged.jsonl")
        self.damaged = {row["id"]: row for row in lines if row["step"] < step}
        if lines:
            self._write_anew("damaged.jsonl", self.damaged.values())
        self.loggers.tell("start", self.path, self.recipe.to_dict(), step)

    def write(self, row: MetricsRow) -> None:
        """Append one line of metrics; `row["step"]` counts the steps that were done.

        A figure that is not finite is left out: JSON has no such number.
        """
        row = {key: value for key, value in row.items() if math.isfinite(value)}
        self.rows.append(row)
        if self.writes:
            self._append("metrics.jsonl", row)
            self.loggers.tell("log", row)

    def list_damaged(self, step: int, damage: Damage) -> None:
        """List an image that was found damaged in the batch after `step` steps, once."""
        if damage.id in self.damaged:
            return
        row = {"step": step, "id": damage.id, "sample": damage.name, "damage": damage.reason}
        self.damaged[damage.id] = row
        if self.writes:
            self._append("damaged.jsonl", row)

    def finish(self, result: dict[str, Any]) -> None:
        """Write `result.json`: from then on the run is complete."""
        self.loggers.tell("finish", result)
        atomic_write_text(self.path / "result.json", json.dumps(result, indent=2) + "\n")

    def _append(self, name: str, row: MetricsRow) -> None:
        with (self.path / name).open("a") as file:
            file.write(json.dumps(row) + "\n")

    def _write_anew(self, name: str, rows: Iterable[MetricsRow]) -> None:
        if self.writes:
            atomic_write_text(self.path / name, "".join(json.dumps(row) + "\n" for row in rows))

    def _hold(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            held = FileLock(self.path / ".lock")
            held.acquire(timeout=ASKED, poll_interval=ASKED / 10)
        except Timeout:
            raise InputError(
                f"another process is training in {self.path}",
                "Wait until it has ended; or, for a new run, say another --out.",
            ) from None
        except OSError as error:
            raise unwritable(self.path, error) from None
        self._held = held


def look_into(out: Path, resume: bool) -> Literal["new", "begun", "complete"]:
    """What a run finds in its folder; errors: it is taken, has no run to go on with, or diverged.

    Processes that torchrun started anew go on with what they began, if it came to a checkpoint.
    """
    begun = (out / "recipe.toml").exists()
    if not resume and not (begun and restarts() > 0):
        refuse_occupied(out)
        return "new"
    if not begun:
        raise InputError(f"there is no run in {out}", "Say the folder of a run.")
    result = read_result(out)  # it is written last
    if result is None:
        saved = any((out / "checkpoints").glob("step-*.pt"))
        return "begun" if resume or saved else "new"
    if result.get("verdict") == "diverged":
        raise DivergedError(
            f"the run in {out} diverged: {result.get('reason', 'its result says so')}",
            "Train anew, say with a smaller --lr, into another --out.",
        )
    return "complete"


def refuse_occupied(folder: Path) -> None:
    """Stop where a new run would land on top of a run, or of anything else."""
    if not folder.exists():
        return
    if (folder / "recipe.toml").exists():
        raise InputError(
            f"{folder} holds another run",
            "Give this one another --out, or continue that one with --resume"
            f" {shlex.quote(str(folder))}.",
        )
    if not folder.is_dir() or any(entry.name != ".lock" for entry in folder.iterdir()):
        raise InputError(f"{folder} exists and is no empty folder", "Give the run another --out.")


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of the run in `folder`, or None where it is not complete."""
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / 'result.json'} cannot be read: {error}") from None
    return result


def read_metrics(folder: Path) -> list[MetricsRow]:
    """The rows of metrics.jsonl; a last line that a crash tore is left out."""
    return read_rows(folder / "metrics.jsonl")


def resume_command(folder: Path) -> str:
    """What goes on with the run in `folder`, as it was started."""
    several = distributed.world_size() > 1
    program = "torchrun ... -m simsiam_zoo" if several else "simsiam-zoo"
    return f"{program} train --resume {shlex.quote(str(folder))}"


DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
"""What a full or failing disk answers to whoever writes."""


@contextmanager
def disk_trouble(folder: Path) -> Iterator[None]:
    """What a full or failing disk does in the middle of a run, as an InputError."""
    try:
        yield
    except OSError as error:
        go_on = f"Mend that, then go on with: {resume_command(folder)}"
        if isinstance(error.filename, (str, bytes)):  # it may be another file than the run's
            file = Path(os.fsdecode(error.filename))
            if not file.absolute().is_relative_to(folder.absolute()):
                raise InputError(f"{file}: {error.strerror}", go_on) from error
        elif error.filename is None and error.errno not in DISK_FULL:
            raise
        raise InputError(f"{folder} cannot be written any more: {error.strerror}", go_on) from error
