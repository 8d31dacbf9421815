"""`simsiam-zoo ablate`: a study of substitutions, from its file to its report."""

from __future__ import annotations

import heapq
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simsiam_zoo.cli import options
from simsiam_zoo.cli.completion import complete_component
from simsiam_zoo.cli.text import columns, print_heading, print_line, table
from simsiam_zoo.errors import InputError, ZooError

if TYPE_CHECKING:
    from simsiam_zoo.studies.plan import StudyPlan


@click.command(short_help="Run a study: arms, seeds, verdicts, a report.")
@click.argument("study", required=False, shell_complete=complete_component("study"))
@click.option("--list", "listed", is_flag=True, help="The studies that come by name.")
@options.preset("The base's preset (default: the study's own, or mnist-5k).")
@click.option("--seeds", metavar="N,N,...", help="In place of the study's.")
@click.option(
    "--metric",
    "metrics",
    metavar="SPEC",
    multiple=True,
    shell_complete=complete_component("protocol"),
    help="Protocols in place of the study's; may be repeated.",
)
@options.assignments
@click.option("--out", metavar="STUDY", help="The study's folder (default: runs/STUDY-PRESET).")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Runs at once (default: cores).")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads of a run (1).")
@click.option("--gpus", type=click.FloatRange(0), default=0.0, metavar="X", help="GPUs of a run.")
@click.option(
    "--launcher",
    default="local",
    show_default=True,
    metavar="SPEC",
    shell_complete=complete_component("launcher"),
    help="What starts the runs.",
)
@options.plugin_files
@click.option("--dry-run", is_flag=True, help="Print the plan and an estimate; run nothing.")
@options.as_json("the plan, or the results,")
@options.quiet
def ablate(
    study: str | None,
    listed: bool,
    preset: str | None,
    seeds: str | None,
    metrics: tuple[str, ...],
    assignments: tuple[str, ...],
    out: str | None,
    jobs: int | None,
    threads: int | None,
    gpus: float,
    launcher: str,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train a base recipe and its substitutions, measure, judge and compare them.

    STUDY is a study's name or a TOML file. The same command again goes on with a study that was
    interrupted; arms that are complete are not run twice.

    \b
    Examples:
      simsiam-zoo ablate --list
      simsiam-zoo ablate five-parts --dry-run
      simsiam-zoo ablate predictor --preset mnist-5k --seeds 0,1,2
      simsiam-zoo ablate my-study.toml --out runs/mine --jobs 4
    """
    if listed:
        _print_list(as_json)
        return
    if study is None:
        raise InputError("no study is named", "`simsiam-zoo ablate --list` shows them.")
    from simsiam_zoo.studies.plan import plan_study
    from simsiam_zoo.studies.study import read_study

    name, read = read_study(study, preset)
    changes: dict[str, Any] = {}
    if seeds is not None:
        changes["seeds"] = _numbers(seeds)
    if metrics:
        changes["metrics"] = metrics
    if threads is not None:
        changes["threads"] = threads
    if assignments:
        changes["base"] = {**read.base, **options.settings_of({}, assignments)}
    plan = plan_study(name, read.changed(changes), shlex.join(["simsiam-zoo", *sys.argv[1:]]))
    folder = Path(out) if out else Path("runs") / f"{name}-{plan.study.preset.replace('/', '-')}"
    if dry_run:
        described = describe(plan, folder, _jobs(jobs, plan))
        if as_json:
            click.echo(json.dumps(described, indent=1, default=str))
        else:
            print_plan(described)
        return
    _run(plan, folder, _jobs(jobs, plan), gpus, launcher, as_json, quiet)


def _run(
    plan: StudyPlan,
    folder: Path,
    jobs: int,
    gpus: float,
    launcher: str,
    as_json: bool,
    quiet: bool,
) -> None:
    from simsiam_zoo.catalog import catalog
    from simsiam_zoo.report.write import publish
    from simsiam_zoo.studies.launcher import Resources, create_launcher
    from simsiam_zoo.studies.progress import open_study_progress
    from simsiam_zoo.studies.running import run_study

    starter = create_launcher(catalog().resolve("launcher", launcher))
    if not quiet:
        _say_warnings(plan)
    try:
        ended = run_study(
            plan,
            folder,
            starter,
            jobs=jobs,
            resources=Resources(cpus=plan.study.threads, gpus=gpus),
            progress=open_study_progress(quiet),
            changed=lambda: publish(folder),
        )
    except ZooError:
        if (folder / "study.json").exists():
            publish(folder)  # what was done so far can be read
        raise
    results = publish(folder)
    if as_json:
        click.echo(json.dumps(results, indent=1))
    else:
        print_results(results, folder)
    _refuse_if_nothing(results, [code for _, code in ended])


def _refuse_if_nothing(results: dict[str, Any], codes: list[int]) -> None:
    """An arm's failure is a result; where all fail alike, the study is what is wrong."""
    runs = [run for arm in results["arms"] for run in arm["runs"]]
    if any(run["state"] == "done" for run in runs):
        return
    error = next((run["error"] for run in runs if run["error"]), "no run came to its end")
    failed = ZooError(f"no run came to its end; the first one: {error}")
    failed.exit_code = next((code for code in codes if code > 0), 1)
    raise failed


def print_results(results: dict[str, Any], folder: Path) -> None:
    """The table of the arms, and where the report is."""
    metrics = list(
        dict.fromkeys(name for arm in results["arms"] for name in arm["summary"]["metrics"])
    )
    rows = []
    for arm in results["arms"]:
        summary = arm["summary"]
        figures = [_figure(summary["metrics"].get(name)) for name in metrics]
        verdict = _verdicts(summary) or ("not run" if not arm["runs"] else "-")
        if arm["same_as"]:
            verdict = f"= {arm['same_as']}"
        expected = {True: "as expected", False: "not as expected", None: ""}
        rank = summary["effective_rank"]
        rows.append(
            [
                arm["label"],
                str(summary["done"]),
                *figures,
                "-" if rank is None else f"{rank['mean']:.1f}",
                verdict,
                expected[summary["as_expected"]],
                "" if arm["paper"] is None else f"{arm['paper']:g}",
            ]
        )
    header = ["arm", "seeds", *metrics, "rank", "verdict", "", "paper"]
    print_line()
    print_heading(results["title"])
    print_line(table(header, rows))
    for note in results["notes"]:
        print_line(f"  {note}")
    for missing in results["not_run"]:
        seed = "" if missing["seed"] is None else f", seed {missing['seed']}"
        print_line(f"  not run: {missing['arm']}{seed}: {missing['why']}")
    for stale in results["stale"]:
        print_line(f"  stale: {folder / stale} is of an arm that the study has no more")
    print_line()
    print_heading(str(folder))
    files = [
        ["report.html", "the report: opens offline"],
        ["report.md", "the same for a repository"],
        ["results.csv", "a row for each run"],
        ["results.json", "all of it"],
    ]
    for line in columns([row for row in files if (folder / row[0]).exists()], wrap=1):
        print_line(line)


def _verdicts(summary: dict[str, Any]) -> str:
    """The verdict of all seeds; where they differ, each with its number of seeds."""
    found = summary["verdicts"]
    if len(found) < 2:
        return "".join(found)
    return ", ".join(f"{count} {verdict}" for verdict, count in found.items())


def _figure(summary: dict[str, Any] | None) -> str:
    if summary is None:
        return "-"
    std = "" if summary["std"] is None else f" ± {100 * summary['std']:.1f}"
    return f"{100 * summary['mean']:.1f}{std}"


def _print_list(as_json: bool) -> None:
    from simsiam_zoo.catalog import catalog

    entries = catalog().entries("study")
    if as_json:
        rows = [
            {"name": e.call, "summary": e.component.summary, "reference": e.component.reference}
            for e in entries
        ]
        click.echo(json.dumps(rows, indent=1))
        return
    for line in columns([[e.call, e.component.summary] for e in entries], wrap=1):
        print_line(line)


def _say_warnings(plan: StudyPlan) -> None:
    labels = {arm.name: arm.label for arm in plan.arms}
    for name, warnings in plan.warnings.items():
        for warning in warnings:
            click.echo(f"{labels[name]}: {warning}", err=True)
    for name, why in plan.not_run.items():
        click.echo(f"{labels[name]} is not run: {why}", err=True)


def _jobs(jobs: int | None, plan: StudyPlan) -> int:
    from simsiam_zoo.runtime.cores import available_cores

    return jobs or max(1, available_cores() // plan.study.threads)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise InputError(f"--seeds takes whole numbers, 0,1,2, not {text!r}") from None


def describe(plan: StudyPlan, folder: Path, jobs: int) -> dict[str, Any]:
    """The plan, with what is done of it and an estimate of the rest, as plain values."""
    from simsiam_zoo.studies.estimate import estimate
    from simsiam_zoo.studies.job import is_complete

    metrics = plan.study.metrics
    left = [job for job in plan.jobs(folder) if not is_complete(job.folder, metrics)]
    timed = dict(estimate(plan)) if left else {}
    seconds = {arm: each for arm, each in timed.items() if not isinstance(each, ZooError)}
    for arm, error in timed.items():
        if isinstance(error, ZooError):
            plan.not_run[arm] = error.what
    queue = list(plan.jobs(folder))  # without those that cannot be built
    left = [job for job in left if job.arm not in plan.not_run]
    known = all(job.arm in seconds for job in left)
    total = span([seconds[job.arm] for job in left], jobs) if known else None
    arms = [
        {
            **arm,
            "steps": None if plan.steps.get(arm["name"]) is None else plan.steps[arm["name"]],
            "seconds": seconds.get(arm["name"]),
        }
        for arm in plan.to_dict()["arms"]
    ]
    return {
        **plan.to_dict(),
        "arms": arms,
        "folder": str(folder),
        "runs": len(queue),
        "runs_left": len(left),
        "jobs": jobs,
        "seconds": total,
    }


def span(seconds: list[float], jobs: int) -> float:
    """Seconds until all have ended, of which `jobs` run at once and start in this order."""
    ends = [0.0] * jobs
    for each in seconds:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)


def print_plan(plan: dict[str, Any]) -> None:
    """A table of the arms, what there is to know of them, and the estimate."""
    print_heading(plan["title"])
    rows = []
    for arm in plan["arms"]:
        steps, seconds = arm["steps"], arm["seconds"]
        note = f"= {arm['same_as']}, not run again" if arm["same_as"] else ""
        if arm["not_run"]:
            note = "cannot be run"
        rows.append(
            [
                arm["label"],
                "-" if steps is None else f"{steps[1]:,}",
                "-" if seconds is None else _minutes(seconds),
                " or ".join(arm["expect"] or []),
                "" if arm["paper"] is None else f"{arm['paper']:g}",
                note,
            ]
        )
    print_line(table(["arm", "steps", "about", "expected", "paper", ""], rows))
    for arm in plan["arms"]:
        for warning in [*arm["warnings"], *filter(None, [arm["not_run"]])]:
            print_line(f"  {arm['label']}: {warning}")
    print_line()
    seeds = ", ".join(map(str, plan["seeds"]))
    print_line(f"{plan['runs']} runs in {plan['folder']}; seeds {seeds}; {plan['jobs']} at once")
    if plan["runs_left"] < plan["runs"]:
        print_line(f"{plan['runs'] - plan['runs_left']} of them are complete")
    if plan["seconds"] is None and plan["runs_left"]:
        print_line("how long: unknown, for the data is not at hand")
    elif plan["runs_left"]:
        print_line(f"about {_minutes(plan['seconds'])} of training here; evaluation comes on top")


def _minutes(seconds: float) -> str:
    minutes = seconds / 60
    if minutes >= 90:
        return f"{minutes / 60:.1f} h"
    return f"{minutes:.0f} min" if minutes >= 1 else f"{seconds:.0f} s"
