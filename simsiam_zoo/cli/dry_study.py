"""`simsiam-zoo ablate --dry-run`: the arms, the runs, and how long they would take."""

from __future__ import annotations

import heapq
from pathlib import Path
from typing import Any

from simsiam_zoo.cli.text import print_heading, print_line, table
from simsiam_zoo.errors import ZooError
from simsiam_zoo.studies.estimate import estimate
from simsiam_zoo.studies.job import is_complete
from simsiam_zoo.studies.plan import StudyPlan


def describe(plan: StudyPlan, folder: Path, jobs: int) -> dict[str, Any]:
    """The plan, with what is done of it and an estimate of the rest, as plain values."""
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
