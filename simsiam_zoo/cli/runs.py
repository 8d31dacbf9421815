"""`simsiam-zoo runs`: what runs there are, how they are and what came of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simsiam_zoo.api.results import RELOAD
from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import (
    columns,
    leave_out,
    print_heading,
    print_json,
    print_line,
    terminal_width,
)
from simsiam_zoo.errors import InputError

if TYPE_CHECKING:
    from simsiam_zoo.api.found import FoundRuns
    from simsiam_zoo.studies.found_runs import FoundRun

_MOST_KEYS = 6  # that differ; a pipe gets all
_BUSY = 10  # times as long as a version takes to make, nothing is done


@click.command()
@click.argument("folders", nargs=-1, metavar="[FOLDER]...")
@click.option(
    "--where",
    "conditions",
    metavar="KEY=VALUE",
    multiple=True,
    help="Only runs for which this holds (=, !=, <, <=, >, >=); may be repeated.",
)
@click.option("--sort", "key", metavar="KEY", default="age", help="By what (default: age).")
@click.option("--best", "word", metavar="PROTOCOL", help="The best run by a protocol, and why.")
@click.option("--out", metavar="FILE", help="Write the list as a page, with the runs' curves.")
@click.option("--watch", is_flag=True, help="Keep the page up to date until Ctrl-C.")
@options.as_json("the list, or the best runs,")
def runs(
    folders: tuple[str, ...],
    conditions: tuple[str, ...],
    key: str,
    word: str | None,
    out: str | None,
    watch: bool,
    as_json: bool,
) -> None:
    """List the runs in or below each FOLDER (default: runs), newest first.

    A KEY is a key of the recipe, a protocol, or one of age, name, state, verdict and measured_on. A
    run is running, resumable, complete or failed.

    \b
    Examples:
      simsiam-zoo runs
      simsiam-zoo runs runs/five-parts-digits --sort knn
      simsiam-zoo runs --where predictor=none --where verdict=learned
      simsiam-zoo runs --where "optim.lr>0.1" --best knn
      simsiam-zoo runs --watch
    """
    from simsiam_zoo.api.found import runs as find

    def collect() -> FoundRuns:
        return find(*folders, where=conditions, sort=key)

    if watch or out is not None:
        if word is not None or as_json:
            raise InputError("--out and --watch write a page, so no --best and no --json")
        first = Path(folders[0]) if folders else Path("runs") if Path("runs").is_dir() else Path()
        _write_page(Path(out) if out is not None else first / "runs.html", collect, watch)
        return
    found = collect()
    if word is not None:
        chosen = found.best(word)
        if as_json:
            print_json([_best_json(each) for each in chosen])
        for each in () if as_json else chosen:
            _print_best(each)
    elif as_json:
        print_json(found.rows)
    elif found:
        _print_runs(found, found.common)
    else:
        place = ", ".join(folders) or "runs"
        way_out = "--where holds for none" if conditions else "`simsiam-zoo train` makes one"
        print_line(f"There are no such runs in {place}: {way_out}.")


def _write_page(path: Path, collect: Callable[[], FoundRuns], watch: bool) -> None:
    told = False
    try:
        while True:
            began = time.monotonic()
            collect().write(path, RELOAD if watch else 0)
            if not told:
                told = True
                going = f", reloads itself every {RELOAD} s; Ctrl-C ends it" if watch else ""
                print_line(f"{path}: opens offline{going}")
            if not watch:
                return
            time.sleep(max(RELOAD, _BUSY * (time.monotonic() - began)))
    except KeyboardInterrupt:
        collect().write(path)
        print_line(f"\n{path} stays as it is now")


def _print_runs(found: Sequence[FoundRun], common: Path) -> None:
    """A table; on a terminal what differs stands below a run's name where it finds no room."""
    from simsiam_zoo.metrics import short_names
    from simsiam_zoo.studies.found_runs import age, short_name

    names = short_names(dict.fromkeys(name for run in found for name in run.figures))
    on = {run.measured_on for run in found if run.figures}
    cells = {"verdict": [run.verdict or run.state for run in found]}
    cells |= {
        short: [_top1(run, name, len(on) > 1) for run in found] for name, short in names.items()
    }
    cells["age"] = [age(time.time() - run.changed) for run in found]
    cells["run"] = [short_name(run, common) for run in found]
    more = ", ".join(reversed(leave_out(cells, [*names.values()][:0:-1])))
    print_heading(f"{_count(len(found))} in {common}")
    for text in _with_told(cells, _told(found)):
        print_line(text)
    kind = f" on {on.pop()} images" if len(on) == 1 else "; v: on validation images" if on else ""
    if names:
        print_line(f"  top-1 in per cent{kind}{'; no room for ' if more else ''}{more}")


def _top1(run: FoundRun, protocol: str, mixed: bool) -> str:
    figure = run.figures.get(protocol)
    mark = " v" if mixed and run.measured_on == "validation" else ""
    return "" if figure is None else f"{100 * figure.top1:.1f}{mark}"


def _told(found: Sequence[FoundRun]) -> list[str]:
    """Of each run why it failed or how far it is, and what differs."""
    from simsiam_zoo.report.pages import compact
    from simsiam_zoo.studies.compared_runs import differing
    from simsiam_zoo.studies.found_runs import progress_of

    told = []
    for run, own in zip(found, differing(found, usual=False), strict=True):
        texts = [f"{key}={compact(value)}" for key, value in own.items()]
        if terminal_width() is not None and len(texts) > _MOST_KEYS + 1:
            texts = [*texts[:_MOST_KEYS], f"{len(texts) - _MOST_KEYS} more"]
        state = run.why or ("" if run.verdict else progress_of(run))
        told.append(", ".join(filter(None, [state, *texts])))
    return told


def _with_told(cells: Mapping[str, Sequence[str]], told: Sequence[str]) -> list[str]:
    """The table; what is told of a run stands on lines of its own where there is no room."""
    texts = columns(
        [[*cells, "what differs"], *zip(*cells.values(), told, strict=True)], len(cells)
    )
    terminal = terminal_width()
    if terminal is None or all(len(each) <= terminal and "\n" not in each for each in texts):
        return texts
    import textwrap

    texts = columns([[*cells], *zip(*cells.values(), strict=True)], len(cells) - 1)
    indent = " " * max(4, min(texts[0].index("run") + 2, terminal - 30))
    for number, each in enumerate(told, 1):
        lines = textwrap.wrap(each, terminal - len(indent), break_on_hyphens=False)
        texts[number] += "".join(f"\n{indent}{line}" for line in lines)
    return texts


def _print_best(found: dict[str, Any]) -> None:
    from simsiam_zoo.recipe.naming import data_name
    from simsiam_zoo.report.pages import compact

    run, figure, second, gap = (found[n] for n in ("run", "figure", "next", "difference"))
    images = f"{figure.test_images:,} {figure.measured_on} images"
    data = data_name(run.keys.get("dataset.name"), run.keys.get("dataset.path"))
    print_heading(f"Best by {figure.protocol} of {_count(found['runs'])}, on {images} of {data}")
    lines = [f"{run.folder}: {100 * figure.top1:.1f} %, {run.verdict}"]
    if second is not None:
        told = f"next {second.folder}: {100 * (figure.top1 - gap['mean']):.1f} %, {second.verdict};"
        lines.append(f"{told} {difference_text(gap)}")
        keys = [f"{k} {compact(a)} (next: {compact(b)})" for k, (a, b) in found["differs"].items()]
        lines.append(f"differs: {', '.join(keys) or 'nothing that decides what is computed'}")
    if found["left_out"]:
        lines.append(
            f"{found['left_out']} more, measured on test images, left out: no test image chooses"
        )
    if figure.measured_on == "test" and second is not None:
        lines.append(
            "chosen on test images, so its figure is too good: to choose, measure on held-out"
            " training images (--set data.validation=0.2, or `simsiam-zoo tune RUN`)"
        )
    for text in columns([[each] for each in lines], wrap=0):
        print_line(text)


def difference_text(gap: dict[str, Any]) -> str:
    """`+1.4 points (+0.2 to +2.6)`."""
    mean = f"{100 * gap['mean']:+.1f} points"
    if gap["n"] is None:
        return f"{mean} (not paired by image)"
    return f"{mean} ({100 * gap['low']:+.1f} to {100 * gap['high']:+.1f}, 95 %, paired by image)"


def _count(runs: int) -> str:
    return f"{runs:,} run{'s' * (runs != 1)}"


def _best_json(found: dict[str, Any]) -> dict[str, Any]:
    figure, second = found["figure"], found["next"]
    return {
        "folder": str(found["run"].folder),
        "verdict": found["run"].verdict,
        "protocol": figure.protocol,
        "version": figure.protocol_version,
        "top1": figure.top1,
        "images": figure.test_images,
        "measured_on": figure.measured_on,
        "runs": found["runs"],
        "left_out": found["left_out"],
        "next": None if second is None else str(second.folder),
        "difference": found["difference"],
        "differs": found["differs"],
    }
