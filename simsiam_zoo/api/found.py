"""Runs that are there: `runs` lists them, `compare` puts some side by side. No torch here."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from simsiam_zoo.api.given import RunLike, named
from simsiam_zoo.api.results import Page
from simsiam_zoo.charts.tables import html_table, text_table
from simsiam_zoo.errors import InputError
from simsiam_zoo.metrics import short_names
from simsiam_zoo.studies.found_runs import (
    FAILED,
    FoundRun,
    age,
    common_folder,
    find_runs,
    named_run,
    progress_of,
    short_name,
)


class FoundRuns(list[FoundRun]):
    """Runs as they were found, from their files alone; `load` opens one of them.

    `common`: the innermost folder that all of them were looked for in.
    """

    def __init__(self, found: Iterable[FoundRun], common: Path = Path()) -> None:
        super().__init__(found)
        self.common = common

    def best(self, protocol: str) -> list[dict[str, Any]]:
        """The best complete run by a protocol, `knn`, for each set of images, and why.

        The `run`, its `figure`, the `next` run, the `difference` of their figures and the keys in
        which their recipes differ, `differs`. InputError: no complete run has such a figure.
        """
        from simsiam_zoo.studies.compared_runs import best

        return best(self, protocol)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Plain values, one dict for each: what `simsiam-zoo runs --json` prints."""
        from simsiam_zoo.studies.compared_runs import differing

        return [
            {
                "folder": str(run.folder),
                "state": run.state,
                "verdict": run.verdict,
                "why": run.why,
                "progress": progress_of(run) if run.verdict is None else None,
                "measured_on": run.measured_on if run.figures else None,
                "figures": {name: figure.top1 for name, figure in run.figures.items()},
                "differs": own,
                "preset": run.keys.get("preset"),
                "seed": run.keys.get("training.seed"),
                "identity": run.result.get("identity"),
                "changed": datetime.fromtimestamp(run.changed, UTC).isoformat(timespec="seconds"),
            }
            for run, own in zip(self, differing(self), strict=True)
        ]

    def write(self, out: Path | str, reload: int = 0) -> Page:
        """Write the list as a page, with the runs' curves. InputError: it cannot be written.

        `reload`: seconds after which a browser loads it again; 0: it does not.
        """
        from simsiam_zoo.report.runs_page import render_list
        from simsiam_zoo.runtime.folders import check_out, save_text

        check_out(path := Path(out))
        save_text(path, render_list(self, self.common, reload))
        return Page(path)

    def _table(self) -> list[list[str]]:
        names = short_names(dict.fromkeys(name for run in self for name in run.figures))
        rows = [["run", "verdict", *names.values(), "age"]]
        for run in self:
            figures = [run.figures.get(name) for name in names]
            shown = ["" if each is None else f"{100 * each.top1:.1f}" for each in figures]
            told = (run.verdict or run.state, *shown, age(time.time() - run.changed))
            rows.append([short_name(run, self.common), *told])
        return rows

    def __str__(self) -> str:
        return text_table(self._table(), "")

    def _repr_html_(self) -> str:
        return html_table(self._table())


def runs(*folders: Path | str, where: Sequence[str] = (), sort: str = "age") -> FoundRuns:
    """The runs in or below the folders, by default `runs`, newest first: `simsiam-zoo runs`.

    Args:
        folders: where to look.
        where: conditions that hold for them: `predictor=none`, `optim.lr>0.1`, `verdict=learned`.
        sort: a key of the recipe, a protocol, or age, name, state, verdict, measured_on.

    InputError: there is no such folder, it is no condition, or no run has such a key.
    """
    from simsiam_zoo.studies.compared_runs import sort as sorted_by
    from simsiam_zoo.studies.compared_runs import where as chosen

    roots = [Path(folder) for folder in folders]
    if not roots:
        roots = [Path("runs")] if Path("runs").is_dir() else []
    found = chosen(find_runs(roots), where)
    return FoundRuns(found if sort == "age" else sorted_by(found, sort), common_folder(roots))


def gap_text(gap: dict[str, Any] | None) -> str:
    """`+1.4 (+0.2 to +2.6)`; without the interval where images are not paired."""
    if gap is None:
        return ""
    mean = f"{100 * gap['mean']:+.1f}"
    if gap["n"] is None:
        return mean
    return f"{mean} ({100 * gap['low']:+.1f} to {100 * gap['high']:+.1f})"


@dataclass(frozen=True)
class Comparison:
    """Runs side by side, each against the first.

    `data` is what `simsiam-zoo compare --json` prints: `runs`, the `keys` in which their recipes
    differ, `metrics` with `differences`, `notes`. `page`: the same with curves, if it was written.
    """

    runs: tuple[FoundRun, ...] = field(repr=False)
    data: dict[str, Any] = field(repr=False)
    page: Page | None = None

    @property
    def keys(self) -> dict[str, list[Any]]:
        """Key → its value in each run, of the keys in which they differ."""
        return dict(self.data["keys"])

    def _table(self) -> list[list[str]]:
        """Runs across; below them what differs, and each figure with its difference."""
        from simsiam_zoo.report.pages import compact

        runs, metrics = self.data["runs"], self.data["metrics"]
        names = short_names(metric["protocol"] for metric in metrics)
        rows = [["", *(run["folder"] for run in runs)]]
        rows += [[key, *map(compact, values)] for key, values in self.keys.items()]
        rows.append(["verdict", *(run["verdict"] or run["state"] for run in runs)])
        for metric in metrics:
            top1 = ["" if each is None else f"{100 * each:.1f}" for each in metric["top1"]]
            rows.append([f"{names[metric['protocol']]}, %", *top1])
            rows.append(["  from the first", *map(gap_text, metric["differences"])])
        return rows

    def __str__(self) -> str:
        return text_table(self._table(), "")

    def _repr_html_(self) -> str:
        return html_table(self._table())


def compare(*runs: RunLike, out: Path | str | None = None) -> Comparison:
    """In which keys of their recipes runs differ, and what that did: `simsiam-zoo compare`.

    Figures of the same test images are paired by image.

    Args:
        runs: two or more; a text may be a run's name in `runs`.
        out: the page with the curves over each other; by default none is written.

    InputError: there is no such run, one is named twice, their images are others, or the page
    cannot be written.
    """
    from simsiam_zoo.report.runs_page import render_comparison
    from simsiam_zoo.runtime.folders import check_out, save_text
    from simsiam_zoo.studies.compared_runs import compare as compare_runs

    if len(runs) < 2:
        raise InputError("one run alone is not compared", "Name two or more.")
    found = [named_run(named(run)) for run in runs]
    if len({run.folder.resolve() for run in found}) < len(found):
        raise InputError("a run is named twice", "Name each once.")
    for run in found:
        if run.state == FAILED and not run.keys:
            raise InputError(f"{run.folder} cannot be compared: {run.why}")
    path = None if out is None else Path(out)
    if path is not None:
        check_out(path)
    compared = compare_runs(found)
    if path is not None:
        save_text(path, render_comparison(found, compared))
    return Comparison(tuple(found), compared, None if path is None else Page(path))
