"""What functions hand back: a page that was written, the results of a study."""

from __future__ import annotations

import os
import webbrowser
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from markupsafe import Markup

from simsiam_zoo.charts.tables import html_table, text_table
from simsiam_zoo.errors import InputError, ZooError

if TYPE_CHECKING:
    from simsiam_zoo.training.run import Run

RELOAD = 10
"""Seconds after which a page that is kept up to date reloads itself."""


@dataclass(frozen=True)
class Page:
    """A page that opens offline; a notebook shows it. `notes`: what it lacks, and why."""

    path: Path
    notes: tuple[str, ...] = ()

    def open(self) -> None:
        """Open it in the browser."""
        webbrowser.open(self.path.resolve().as_uri())

    def _repr_html_(self) -> str:
        # A notebook's server gives out what lies below its own folder alone.
        place = os.path.relpath(self.path)
        frame = Markup('<iframe src="{0}" width="100%" height="600"></iframe><a href="{0}">{1}</a>')
        return frame.format(quote(place), place)


@dataclass(frozen=True)
class StudyResults:
    """What a study in a folder came to; `data` is what its results.json holds.

    `failed`: why no run came to its end; None where one did.
    """

    folder: Path
    data: dict[str, Any] = field(repr=False)
    failed: ZooError | None = None

    def or_raise(self) -> StudyResults:
        """Themselves. ZooError: no run came to its end."""
        if self.failed is not None:
            raise self.failed
        return self

    @property
    def report(self) -> Page:
        """The report, which opens offline."""
        return Page(self.folder / "report.html")

    @property
    def arms(self) -> dict[str, dict[str, Any]]:
        """By name, the base first: `label`, `substitution`, `runs`, and `summary`, which has
        `metrics` (`mean` and `std` of shares over seeds), `difference` from the base, `verdict`."""
        return {arm["name"]: arm for arm in self.data["arms"]}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One for each run that is reported, flat; `pandas.DataFrame` takes them."""
        plain = ("seed", "state", "verdict", "std_sqrt_d", "effective_rank", "loss", "seconds")
        found = []
        for name, arm in self.arms.items():
            for run in arm["runs"]:
                top1 = {protocol: each["top1"] for protocol, each in run["metrics"].items()}
                own = {key: run[key] for key in plain}
                found.append({"arm": name, "label": arm["label"], **own, **top1})
        return found

    def run(self, arm: str, seed: int | None = None) -> Run:
        """An arm's run; without a seed that of the first one. InputError: there is none."""
        from simsiam_zoo.training.run import load

        runs = self.arms[arm]["runs"] if arm in self.arms else []
        for each in runs:
            if seed is None or each["seed"] == seed:
                return load(self.folder / each["folder"])
        known = ", ".join(name for name, each in self.arms.items() if each["runs"])
        raise InputError(
            f"the study has no run of {arm!r}" + ("" if seed is None else f" with seed {seed}"),
            f"Arms with runs are {known}.",
        )

    def _table(self) -> list[list[str]]:
        from simsiam_zoo.report.content import arm_columns
        from simsiam_zoo.report.study import read_results

        columns = arm_columns(read_results(self.data))
        return [[*columns], *map(list, zip(*columns.values(), strict=True))]

    def __str__(self) -> str:
        return f"{self.data['title']}\n{text_table(self._table())}\n  {self.folder}"

    def _repr_html_(self) -> str:
        return html_table(self._table(), self.data["title"], str(self.folder))
