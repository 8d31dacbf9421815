"""What a study's report says of its tuning: how each candidate of each arm came out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from simsiam_zoo.charts.lines import LEFT, RIGHT, Axis, Chart, Series, line_style, make_chart
from simsiam_zoo.report.pages import Cell, Column, Table, count, fixed, listing, quoted
from simsiam_zoo.report.study import Candidate, ReportArm, StudyView

_BAD = ("collapsed", "diverged")


def tuned(study: StudyView) -> list[str]:
    """Sentences: how the arms were tuned, which collapsed on the way, whose best is an edge."""
    tune = study.tune
    arms = [arm for arm in study.arms if arm.candidates]
    if tune is None or not arms:
        return []
    keys = listing(list(arms[0].candidates[0].values))
    told = [
        f"Every arm was tuned alike: {count(len(arms[0].candidates), 'candidate')} for {keys},"
        f" {count(len(tune['seeds']), 'seed')}, {_epochs(tune['length'])}, chosen by"
        f" {tune['metric']} on {100 * tune['validation']:g} % of the training images."
    ]
    if tune.get("halving"):
        stops = {each.stopped[0] for arm in arms for each in arm.candidates if each.stopped}
        at = listing([str(epoch) for epoch in sorted(stops)])
        told += [f"The worse half of each arm's was stopped after epoch {at}."] if at else []
    fallen = [text for arm in arms if (text := _fallen(arm))]
    if fallen:
        told.append(f"On the way {'; '.join(fallen)}.")
    edges = [f"{quoted(arm.label)} ({_chosen(arm, arm.at_edge)})" for arm in arms if arm.at_edge]
    if edges:
        told.append(f"At the edge of what was tried, so that more may be better: {listing(edges)}.")
    return told


def _epochs(length: float) -> str:
    return "all epochs" if length == 1 else f"{length:g} of the epochs"


def _fallen(arm: ReportArm) -> str:
    """`"predictor removed" collapsed at 4 of 4 lr`; empty where no candidate did."""
    outcomes = [(each, each.mark) for each in arm.candidates]
    found = Counter(mark for _, mark in outcomes if mark in _BAD)
    if not found:
        return ""
    of = f"{len(outcomes)} {listing([short(key) for key in arm.candidates[0].values])}"
    text = " and ".join(f"{mark} at {n} of {of}" for mark, n in found.items())
    learned = [f"{'/'.join(each.values.values())}" for each, mark in outcomes if mark == "learned"]
    return f"{quoted(arm.label)} {text}" + (f", learned at {listing(learned)}" if learned else "")


def _chosen(arm: ReportArm, keys: list[str]) -> str:
    return ", ".join(f"{short(key)} {arm.chosen[key]}" for key in keys)


def short(key: str) -> str:
    """The last word of a recipe's path."""
    return key.rpartition(".")[2]


def candidate_table(study: StudyView) -> Table | None:
    """A row for each arm, a column for each candidate; None where nothing was tuned."""
    arms = [arm for arm in study.arms if arm.candidates]
    if not arms:
        return None
    heads = [_called(each) for each in arms[0].candidates]
    columns = [Column("Arm", number=False), Column("Chosen", number=False)]
    columns += [Column(f"{head}, %") for head in heads]
    return columns, [
        [Cell(arm.label), Cell(_chosen(arm, list(arm.chosen))), *map(_cell, arm.candidates)]
        for arm in arms
    ]


def _called(candidate: Candidate) -> str:
    return ", ".join(f"{short(key)} {value}" for key, value in candidate.values.items())


def _cell(candidate: Candidate) -> Cell:
    verdict = candidate.mark or (candidate.runs[0].state if candidate.runs else "")
    if candidate.stopped is not None:
        epoch, share = candidate.stopped
        return Cell(fixed(100 * share, 1), f"stopped after epoch {epoch}")
    if candidate.top1 is None:
        return Cell(note=verdict, verdict=candidate.mark)
    return Cell(fixed(100 * candidate.top1, 1), verdict, candidate.top1, candidate.mark)


def sensitivity(study: StudyView) -> Chart | None:
    """The validation metric of each arm over the key that was tuned, if it is one of numbers."""
    styles = line_styles(study)
    lines = [line for arm in study.arms if (line := _line(arm, styles))]
    values = sorted({x for line in lines for x, _ in line.points})
    if study.tune is None or len(values) < 2:
        return None
    (key,) = next(arm for arm in study.arms if arm.candidates).candidates[0].values
    drawn = make_chart(
        f"{study.tune['metric']} on validation images, %",
        f"after {_epochs(study.tune['length'])}",
        lines,
        1.0,
    )
    log, room = values[0] > 0, 0.04 * (values[-1] - values[0])
    ends = (0.9 * values[0], 1.1 * values[-1]) if log else (values[0] - room, values[-1] + room)
    ticks = values[:: -(-len(values) // 6)]  # six at most
    axis = Axis(*ends, LEFT, RIGHT, ticks, log)
    return replace(drawn, x=axis, against=short(key))


def _line(arm: ReportArm, styles: dict[int, str]) -> Series | None:
    points = []
    for each in arm.candidates:
        try:
            (x,) = (float(value) for value in each.values.values())
        except ValueError:  # several keys, or no number
            return None
        if each.top1 is not None:
            points.append((x, 100 * each.top1))
    if not points:
        return None
    style = styles.get(arm.number, "base")
    return Series(sorted(points), style, arm.label, str(arm.number), label=arm.label)


def line_styles(study: StudyView) -> dict[int, str]:
    """Style of each arm but the base, by its number."""
    others = [arm.number for arm in study.arms if not arm.is_base]
    return {number: line_style(at) for at, number in enumerate(others)}
