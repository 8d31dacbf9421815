"""Loggers: the rows of metrics once more, in the form that another tool reads.

The contract is `simsiam_zoo.training.run_folder.Logger`.
"""

from __future__ import annotations

import csv
import io
import textwrap
from pathlib import Path
from typing import Any

import tomli_w

from simsiam_zoo.errors import PluginError
from simsiam_zoo.runtime.folders import atomic_write_text

_COUNTERS = ("step", "epoch")


class TensorBoardLogger:
    """Each figure as a scalar over steps, the recipe and the verdict as text.

    `path` is the folder of the event files, relative to the run's. Raises PluginError where
    tensorboard is not installed.
    """

    def __init__(self, *, path: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise PluginError(
                f"logger tensorboard cannot be used: {error}",
                "Install what it needs: python -m pip install 'simsiam-zoo[tensorboard]'",
            ) from None
        self._open = SummaryWriter
        self._path = path
        self._step = 0

    def start(self, folder: Path, recipe: dict[str, Any], step: int) -> None:
        """Open a new event file; what earlier ones hold of later steps is hidden by it."""
        # Of two events with one step TensorBoard shows both: without this, steps that a killed
        # run had logged after its last checkpoint would be there twice.
        purge = step + 1 if step else None
        self._writer = self._open(str(folder / self._path), purge_step=purge)
        self._step = step
        if not step:
            code = textwrap.indent(tomli_w.dumps(recipe), "    ")  # as Markdown has it
            self._writer.add_text("recipe", code, 0)

    def log(self, row: dict[str, Any]) -> None:
        """One scalar for each figure, on disk when this returns."""
        self._step = row["step"]
        for name, value in row.items():
            if name not in _COUNTERS:
                self._writer.add_scalar(name, value, self._step)
        self._writer.flush()  # a killed run goes on from its checkpoint, and this must be there

    def finish(self, result: dict[str, Any]) -> None:
        """The verdict and its reason; closes the file."""
        self._writer.add_text("verdict", f"{result['verdict']}: {result['reason']}", self._step)
        self._writer.close()


class CsvLogger:
    """A table at `path` with a line for each row; a figure that a row does not have is empty."""

    def __init__(self, *, path: str) -> None:
        self._path = path
        self._columns: list[str] = []

    def start(self, folder: Path, recipe: dict[str, Any], step: int) -> None:
        """Begin the table, or cut it back to `step`."""
        self._file = folder / self._path
        self._file.parent.mkdir(parents=True, exist_ok=True)
        rows = self._rows() if step else []
        self._columns = list(rows[0]) if rows else list(_COUNTERS)
        self._write_anew([row for row in rows if int(row["step"]) <= step])

    def log(self, row: dict[str, Any]) -> None:
        """Append a line; a figure that is new is a new column of the whole table."""
        if new := [name for name in row if name not in self._columns]:
            rows = self._rows()
            self._columns += new
            self._write_anew([*rows, row])
            return
        with self._file.open("a", newline="") as file:
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(row)

    def finish(self, result: dict[str, Any]) -> None:
        """Nothing is left to write."""

    def _rows(self) -> list[dict[str, Any]]:
        try:
            with self._file.open(newline="") as file:
                rows: list[dict[str, Any]] = list(csv.DictReader(file))
        except FileNotFoundError:
            return []
        # a crash may have torn the last line: it is of a step that comes again
        return [row for row in rows if (row["step"] or "").isdigit() and None not in row.values()]

    def _write_anew(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        atomic_write_text(self._file, text.getvalue())
