"""`simsiam-zoo tune`: a small search about a run's own values, on validation images."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import print_columns, print_heading, print_json, print_line
from simsiam_zoo.errors import InputError


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
def tune(
    run: str,
    points: int,
    length: float,
    halving: int,
    stop_on_collapse: bool,
    metric: str,
    out: str | None,
    jobs: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Search for a better lr, predictor's lr and crop scale than RUN has.

    RUN is the folder of a run, or a recipe's file. Each candidate is trained on a part of the
    training images and measured on the rest of them; no test image is read. RUN's own values are
    the first candidate. The same command again goes on with what was interrupted.

    \b
    Examples:
      simsiam-zoo tune runs/digits-seed0
      simsiam-zoo tune runs/digits-seed0 --points 16 --length 1
    """
    from rich.console import Console

    from simsiam_zoo.catalog import catalog
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.report.write import publish
    from simsiam_zoo.runtime.machine import available_cores
    from simsiam_zoo.studies.launcher import Resources, create_launcher
    from simsiam_zoo.studies.plan import plan_study
    from simsiam_zoo.studies.running import StudyProgress, run_study
    from simsiam_zoo.studies.tuning import best, study_of_run

    file = Path(run, "recipe.toml") if (path := Path(run)).is_dir() else path
    if not file.is_file():
        raise InputError(f"{run} is no run: it has no recipe.toml", "Name a run's folder.")
    folder = Path(out) if out else path.with_name(f"{path.stem}-tune")
    keys = {"points": points, "length": length, "metric": metric, "halving": halving}
    study = study_of_run(Recipe.of_run(file), keys | {"stop_on_collapse": stop_on_collapse})
    plan = plan_study("tune", study, shlex.join(["simsiam-zoo", *sys.argv[1:]]))
    run_study(
        plan,
        folder,
        create_launcher(catalog().resolve("launcher", "local")),
        jobs=jobs or available_cores(),
        resources=Resources(cpus=plan.threads),
        progress=StudyProgress(None if quiet else Console(stderr=True)),
    )
    (arm,) = publish(folder)["arms"]
    chosen = best(plan.arms[0].candidates, [each["top1"] for each in arm["candidates"]])
    if chosen is None:
        raise _nothing(arm["candidates"], folder)
    command = _train_with(file, chosen)
    if as_json:
        print_json({"candidates": arm["candidates"], "chosen": chosen, "command": command})
    else:
        print_found(arm["candidates"], chosen, metric)
        print_line(f"train with it: {command}")
        print_line(f"the same as a page: {folder / 'report.html'}")


def _train_with(file: Path, chosen: dict[str, Any]) -> str:
    sets = " ".join(f"--set {key}={value:g}" for key, value in chosen.items())
    return f"simsiam-zoo train --recipe {shlex.quote(str(file))} {sets}"


def _nothing(candidates: list[dict[str, Any]], folder: Path) -> InputError:
    errors = [each["error"] for row in candidates for each in row["runs"]]
    told = next((error for error in errors if error), "all of them diverged")
    return InputError(f"no candidate came to a figure: {told}", f"Their logs are in {folder}.")


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
    print_columns(rows, right=True)
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
