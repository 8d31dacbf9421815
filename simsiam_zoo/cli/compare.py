"""`simsiam-zoo compare`: runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import (
    columns,
    print_columns,
    print_figures,
    print_heading,
    print_json,
    print_line,
)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@click.option("--out", metavar="FILE", help="The page (default: compare.html in the first RUN).")
@options.opened("page")
@options.as_json("the comparison")
def compare(runs: tuple[str, ...], out: str | None, opened: bool, as_json: bool) -> None:
    """Say in which keys of their recipes runs differ, and what that did, against the first RUN.

    A RUN is a run's folder, or its name in runs. Figures of the same test images are paired by
    image. A page with the curves over each other is written, which opens offline.

    \b
    Examples:
      simsiam-zoo compare runs/digits-seed0 runs/digits-predictor-none-seed0
      simsiam-zoo compare digits-seed0 digits-seed1 digits-seed2 --open
    """
    from simsiam_zoo.api.found import compare as compare_runs
    from simsiam_zoo.studies.found_runs import named_run

    path = Path(out) if out else named_run(runs[0]).folder / "compare.html"
    found = compare_runs(*runs, out=path)
    if as_json:
        print_json(found.data)
    else:
        _print(found.data)
        print_line()
        print_line(f"{path}: the same with the curves over each other; opens offline")
    if opened and found.page:
        found.page.open()


def _print(found: dict[str, Any]) -> None:
    """Runs are called by letters, so that the tables fit."""
    from simsiam_zoo.api.found import gap_text
    from simsiam_zoo.report.how_sure import p_text
    from simsiam_zoo.report.pages import compact
    from simsiam_zoo.report.runs_page import PAIRED

    letters = [_letter(n) for n in range(len(found["runs"]))]
    for n, run in enumerate(found["runs"]):
        values = [f"{key}={compact(each[n])}" for key, each in found["keys"].items()]
        print_heading(f"{letters[n]}  {run['folder']}")
        print_columns([[text] for text in (", ".join(values), _verdict(run)) if text])
    for metric in found["metrics"]:
        print_line()
        images = f"{metric['test_images']:,} {metric['measured_on']} images"
        print_heading(f"{metric['protocol']}, {images}")
        rows = [["", "top-1", f"from {letters[0]}, points", "right alone", "wrong alone", "p"]]
        for name, top1, gap in zip(letters, metric["top1"], metric["differences"], strict=True):
            row = [name, "" if top1 is None else f"{100 * top1:.1f} %"]
            if gap is not None and gap["n"] is None:
                row.append(f"{gap_text(gap)}, not paired")
            elif gap is not None:
                row += [gap_text(gap), f"{gap['gained']:,}", f"{gap['lost']:,}"]
                row.append(p_text(gap["holm_p"]))
            rows.append([*row, *[""] * (len(rows[0]) - len(row))])
        print_figures(rows)
    paired = any(gap and gap["n"] for m in found["metrics"] for gap in m["differences"])
    notes = found["notes"]
    if paired:
        notes = [f"{PAIRED}: `simsiam-zoo ablate` compares over seeds", *notes]
    print_line()
    for text in columns([[note] for note in notes], wrap=0):
        print_line(text)


def _verdict(run: dict[str, Any]) -> str:
    forms = (("std_sqrt_d", "std x sqrt(d) {:.2f}"), ("effective_rank", "effective rank {:.1f}"))
    words = [form.format(run[key]) for key, form in forms if run[key] is not None]
    return ", ".join([run["verdict"] or run["state"], *words])


def _letter(number: int) -> str:
    """A, B, ... Z, A2, B2, ..."""
    again, place = divmod(number, 26)
    return chr(ord("A") + place) + (str(again + 1) if again else "")
