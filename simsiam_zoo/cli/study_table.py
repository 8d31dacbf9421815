"""The tables of a study's arms, of what came out and of a plan, as a terminal shows them."""

from __future__ import annotations

import re
from typing import Any

from simsiam_zoo.cli.text import (
    leave_out,
    overhang,
    print_columns,
    print_figures,
    print_heading,
    print_line,
)
from simsiam_zoo.runtime.progress import duration
from simsiam_zoo.studies.launcher import SHARED_GPU
from simsiam_zoo.studies.plan import told_once

_PAPER = "Paper, %"
_MIXED = re.compile(r"\d+ .+, \d+ [^ ]+")  # `2 learned, 1 collapsed`
_SHORTEST = 12  # characters of a label that is cut
_LISTED = 30  # seeds that are written out to be copied


def fitting(columns: dict[str, list[str]]) -> tuple[dict[str, list[str]], list[str]]:
    """The columns for which there is room, and the heads of the others; in a pipe, all.

    Verdicts that differ between seeds are then called mixed. The paper's column goes first, then
    other metrics than the main one, the seeds and the rank; what an arm costs and its verdict stay,
    if need be with the labels cut.
    """
    others = [head for head in columns if head.endswith(", %") and head != _PAPER][1:]
    shown = dict(columns)
    if overhang(shown):
        shown["Verdict"] = [_MIXED.sub("mixed", text) for text in shown["Verdict"]]
    left_out = leave_out(shown, (_PAPER, *reversed(others), "Seeds", "Effective rank"))
    _cut_labels(shown, "Arm")
    return shown, [head.removesuffix(", %") for head in left_out]


def _cut_labels(columns: dict[str, list[str]], head: str) -> None:
    """Cut the labels below a head as far as the terminal has no room for them."""
    if over := overhang(columns):
        most = max(_SHORTEST, max(map(len, columns[head])) - over)
        columns[head] = [t if len(t) <= most else f"{t[: most - 1]}…" for t in columns[head]]


def print_plan(plan: dict[str, Any]) -> None:
    """A table of the arms, what there is to know of them, and the estimate."""
    print_heading(plan["title"])
    arms = plan["arms"]
    labels = {arm["name"]: arm["label"] for arm in arms}
    columns = {
        "arm": [*labels.values()],
        "steps": ["-" if arm["steps"] is None else f"{arm['steps'][1]:,}" for arm in arms],
        "about": ["-" if arm["seconds"] is None else duration(arm["seconds"]) for arm in arms],
        "expected": [" or ".join(arm["expect"]) for arm in arms],
        "paper": ["" if arm["paper"] is None else f"{arm['paper']:g}" for arm in arms],
        "": ["not run" if arm["not_run"] or arm["same_as"] else "" for arm in arms],
    }
    _cut_labels(columns, "arm")
    print_figures([[*columns], *zip(*columns.values(), strict=True)])
    run = [arm for arm in arms if not (arm["same_as"] or arm["not_run"])]
    lines = [*told_once((arm["label"], arm["warnings"]) for arm in run)]
    lines += [f"{arm['label']}: {arm['not_run']}" for arm in arms if arm["not_run"]]
    lines += [f"{a['label']}: the same as {labels[a['same_as']]}" for a in arms if a["same_as"]]
    print_columns([[line] for line in lines])
    print_line()
    seeds = ", ".join(map(str, plan["seeds"]))
    print_line(f"{plan['runs']} runs in {plan['folder']}; seeds {seeds}; {plan['jobs']} at once")
    if plan["gpus_here"] and plan["jobs"] > 1 and not plan["gpus"]:
        print_columns([[SHARED_GPU.format(plan["jobs"])]])
    if plan["gpus"] and not plan["gpus_here"]:
        print_columns([["no GPU here: none can start on this machine; times are of its CPU"]])
    if tune := plan["tune"]:
        keys = ", ".join(tune["grid"] or tune["ranges"])
        told = (
            f"{plan['runs_to_choose']} of them choose {keys} for each arm: seeds"
            f" {', '.join(map(str, tune['seeds']))}, {100 * tune['length']:g} % of the epochs,"
            f" {tune['metric']} on {100 * tune['validation']:g} % of the training images"
        )
        print_columns([[told]])
    if done := plan["runs"] - plan["runs_left"]:
        print_line(f"{done} of them are complete")
    if plan["seconds"] is None and plan["runs_left"]:
        print_columns([[f"how long: unknown; {plan['missing_data'] or 'the data is not at hand'}"]])
    elif plan["runs_left"]:
        print_line(f"about {duration(plan['seconds'])} of training here; evaluation comes on top")
    if plan.get("detect"):
        _print_seeds(plan)


def _print_seeds(plan: dict[str, Any]) -> None:
    """The seeds that `--detect` found, for each arm and for all."""
    found = plan["detect"]
    print_line()
    print_heading(f"Seeds that tell {found['points']:g} points by {found['metric']}")
    rows = [["arm", "spread, points", "of seeds", "needs seeds"]]
    for arm in found["arms"]:
        spread = "-" if arm["std"] is None else f"{100 * arm['std']:.2f}"
        needs = "-" if arm["seeds"] is None else f"{arm['seeds']:,}"
        rows.append([arm["label"], spread, str(arm["seen"]), needs])
    print_figures(rows)
    for arm in found["arms"]:
        if arm["why"]:
            print_line(f"  {arm['label']}: {arm['why']}")
    print_line(f"  spread: of the paired differences in {found['from']}")
    print_line(
        f"  power {100 * found['power']:.0f} %, paired t-test at {100 * found['alpha']:.0f} %"
    )
    known = [arm for arm in found["arms"] if arm["seeds"] is not None]
    least = min(known, key=lambda arm: arm["seen"])
    low, high = (end / least["std"] for end in least["std_interval"])
    print_line(
        f"  a spread of {least['seen']} seeds is uncertain: the true one may be {low:.1f} to"
        f" {high:.1f} times it"
    )
    label = next(arm["label"] for arm in known if arm["name"] == found["most_demanding"])
    print_line(f"  {label} needs most: {found['seeds']:,} seeds, {found['runs']:,} runs in all")
    if found["seeds"] <= _LISTED:
        more = (seed for seed in range(2 * _LISTED) if seed not in plan["seeds"])
        seeds = [*plan["seeds"], *more]
        print_line(f"  --seeds {','.join(map(str, seeds[: found['seeds']]))}")
