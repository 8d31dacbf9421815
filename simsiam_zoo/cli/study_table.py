"""The tables of a study's arms, of what came out and of a plan, as a terminal shows them."""

from __future__ import annotations

import re
from typing import Any

from simsiam_zoo.cli.text import print_columns, print_heading, print_line, terminal_width
from simsiam_zoo.metrics import short_names
from simsiam_zoo.report.content import STD_TITLE, arm_table, metric_table
from simsiam_zoo.report.study import StudyView
from simsiam_zoo.runtime.progress import duration

_PAPER = "Paper, %"
_MIXED = re.compile(r"\d+ .+, \d+ [^ ]+")  # `2 learned, 1 collapsed`
_SHORTEST = 12  # characters of a label that is cut


def arm_columns(study: StudyView) -> dict[str, list[str]]:
    """The report's tables of arms: head → cells; the main metric alone has differences."""
    names = short_names(study.metrics)
    columns: dict[str, list[str]] = {}
    for heads, rows in (arm_table(study), metric_table(study)):
        for i, head in enumerate(heads):
            cells = [row[i] for row in rows]
            texts = [cell.text for cell in cells]
            if head.title == "From base" and head.group == study.main:
                # of one seed there is no interval, and a note below says so
                texts = [f"{c.text} ({c.note})" if " to " in c.note else c.text for c in cells]
                columns[head.title] = texts
            elif head.title == "Verdict":
                # ✗: another one was expected
                texts = [c.text + " ✗" * c.note.startswith("✗") for c in cells]
                columns[head.title] = texts
            elif head.title not in ("From base", STD_TITLE):
                columns[f"{names[head.group]}, %" if head.group else head.title] = texts
    return columns


def fitting(columns: dict[str, list[str]]) -> tuple[dict[str, list[str]], list[str]]:
    """The columns for which there is room, and the heads of the others; in a pipe, all.

    Verdicts that differ between seeds are then called mixed. The paper's column goes first, then
    other metrics than the main one, the seeds and the rank; what an arm costs and its verdict stay,
    if need be with the labels cut.
    """
    terminal, left_out = terminal_width(), list[str]()
    others = [head for head in columns if head.endswith(", %") and head != _PAPER][1:]
    shown = dict(columns)

    def missing() -> int:
        widths = (2 + max(map(len, (head, *cells))) for head, cells in shown.items())
        return 0 if terminal is None else max(0, sum(widths) - terminal)

    if missing():
        shown["Verdict"] = [_MIXED.sub("mixed", text) for text in shown["Verdict"]]
    for head in (_PAPER, *reversed(others), "Seeds", "Effective rank"):
        if head in shown and missing():
            del shown[head]
            left_out.append(head.removesuffix(", %"))
    if over := missing():
        most = max(_SHORTEST, max(map(len, shown["Arm"])) - over)
        shown["Arm"] = [t if len(t) <= most else f"{t[: most - 1]}…" for t in shown["Arm"]]
    return shown, left_out


def print_plan(plan: dict[str, Any]) -> None:
    """A table of the arms, what there is to know of them, and the estimate."""
    print_heading(plan["title"])
    rows = [["arm", "steps", "about", "expected", "paper", ""]]
    for arm in plan["arms"]:
        same = f"= {arm['same_as']}, not run again" if arm["same_as"] else ""
        rows.append(
            [
                arm["label"],
                "-" if arm["steps"] is None else f"{arm['steps'][1]:,}",
                "-" if arm["seconds"] is None else duration(arm["seconds"]),
                " or ".join(arm["expect"]),
                "" if arm["paper"] is None else f"{arm['paper']:g}",
                "cannot be run" if arm["not_run"] else same,
            ]
        )
    print_columns(rows, right=True)
    for arm in plan["arms"]:
        for warning in [*arm["warnings"], *filter(None, [arm["not_run"]])]:
            print_line(f"  {arm['label']}: {warning}")
    print_line()
    seeds = ", ".join(map(str, plan["seeds"]))
    print_line(f"{plan['runs']} runs in {plan['folder']}; seeds {seeds}; {plan['jobs']} at once")
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
        print_line("how long: unknown, for the data is not at hand")
    elif plan["runs_left"]:
        print_line(f"about {duration(plan['seconds'])} of training here; evaluation comes on top")
    if plan.get("detect"):
        from simsiam_zoo.cli.seeds_text import print_seeds

        print_seeds(plan)
