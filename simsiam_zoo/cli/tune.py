"""`simsiam-zoo tune`: a small search about a run's own values, on validation images."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import print_figures, print_heading, print_json, print_line


@click.command()
@click.argument("run")
@click.option("--points", type=click.IntRange(1), default=8, show_default=True, help="Draws.")
@click.option(
    "--length",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.5,
    show_default=True,
    metavar="SHARE",
    help="Of the run's epochs.",
)
@click.option(
    "--halving",
    type=click.IntRange(0, 8),
    default=0,
    show_default=True,
    metavar="N",
    help="Times that the worse half of the candidates stops on the way.",
)
@click.option("--stop-on-collapse", is_flag=True, help="End a candidate once it has collapsed.")
@options.spec("--metric", kind="protocol", default="knn", show_default=True, help="What chooses.")
@click.option("--out", metavar="FOLDER", help="Where its runs go (default: RUN-tune).")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Runs at once (default: cores).")
@options.plugin_files
@options.as_json("what was found")
@options.quiet
def tune(run: str, metric: str, as_json: bool, **asked: Any) -> None:
    """Search for a better lr, predictor's lr and crop scale than RUN has.

    RUN is the folder of a run, or a recipe's file. Each candidate is trained on a part of the
    training images and measured on the rest of them; no test image is read. RUN's own values are
    the first candidate. The same command again goes on with what was interrupted.

    \b
    Examples:
      simsiam-zoo tune runs/digits-seed0
      simsiam-zoo tune runs/digits-seed0 --points 16 --length 1
    """
    from simsiam_zoo.api.tuning import tune as search

    command = shlex.join(["simsiam-zoo", *sys.argv[1:]])
    found = search(run, metric=metric, command=command, **asked)
    if as_json:
        names = ("candidates", "chosen", "command")
        print_json({name: getattr(found, name) for name in names})
    else:
        print_found(found.candidates, found.chosen, metric)
        print_line(f"train with it: {found.command}")
        print_line(f"the same as a page: {found.report.path}")


def print_found(candidates: list[dict[str, Any]], chosen: dict[str, Any], metric: str) -> None:
    """The candidates, best first, and what that says."""
    print_heading(f"{metric} on images that were held out of the training images")
    keys = list(chosen)
    rows = [[*(key.rpartition(".")[2] for key in keys), "top-1", "verdict", ""]]
    for row in sorted(candidates, key=lambda each: -(each["top1"] or 0)):
        verdict = " or ".join(sorted({run["verdict"] or run["state"] for run in row["runs"]}))
        shown = "-" if row["top1"] is None else f"{100 * row['top1']:.1f} %"
        if row["stopped"]:
            epoch, share = row["stopped"]
            shown, verdict = f"{100 * share:.1f} %", f"stopped after epoch {epoch}"
        own = "the run's own" if row is candidates[0] else ""
        values = [f"{row['values'][key]:g}" for key in keys]
        rows.append([*values, shown, verdict, own])
    print_figures(rows)
    best, own = max(each["top1"] or 0 for each in candidates), candidates[0]["top1"]
    images = next(
        m["test_images"] for r in candidates for x in r["runs"] for m in x["metrics"].values()
    )
    bad = [
        x["verdict"]
        for row in candidates
        for x in row["runs"]
        if x["verdict"] in ("collapsed", "diverged")
    ]
    if own is not None and best - own < 1.96 * (2 * best * (1 - best) / images) ** 0.5:
        print_line("  not clearly better than the run's own values, by so few images")
    if bad:
        print_line(
            f"  {len(bad)} of {sum(len(row['runs']) for row in candidates)} collapsed or diverged"
        )
