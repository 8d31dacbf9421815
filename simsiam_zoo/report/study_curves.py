"""The runs' `metrics.jsonl`, against epochs; also while they are being written."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simsiam_zoo.report.study_view import View, run_folder
from simsiam_zoo.report.text import finite, line

Point = tuple[float, float]
"""(epoch, value)."""

LOSS, STD, KNN = "loss", "std_sqrt_d", "top1 "


@dataclass(frozen=True)
class Curve:
    """One figure of one run on its way.

    Args:
        arm: its number.
        seed: of the run; None where it is the mean over the arm's seeds.
        points: every one that was written.
        steps_per_epoch: by which epochs become steps again.
        key: the column of metrics.jsonl.
    """

    arm: int
    seed: int | None
    points: list[Point]
    steps_per_epoch: float
    key: str


def read_curves(study: View, folder: Path) -> dict[str, list[Curve]]:
    """Loss, std and kNN of every run that has written some, each arm's seeds and then their mean.

    A column is found by how it begins: the kNN check's name holds its settings.
    """
    found: dict[str, list[Curve]] = {LOSS: [], STD: [], KNN: []}
    for arm in study.arms:
        read = []
        for run in arm.runs:
            path = run_folder(folder, run)
            rows = [] if path is None else read_rows(path / "metrics.jsonl")
            read.append((run.seed, rows, steps_per_epoch(rows)))
        known = [each for _, _, each in read if each is not None]
        for seed, rows, per_epoch in read:
            each = per_epoch or (known[0] if known else _within_an_epoch(rows))
            for key, curves in found.items():
                curve = _curve(arm.number, seed, key, rows, each)
                if curve is not None:
                    curves.append(curve)
        for curves in found.values():
            own = [curve for curve in curves if curve.arm == arm.number]
            if len(own) > 1 and (mean := _mean(own)) is not None:
                curves.append(mean)
    return found


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows with a step. A line that is torn or no row is left out: a run may be writing now."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    rows = []
    for each in lines:
        try:
            row = json.loads(each)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and (finite(row.get("step")) or 0) > 0:
            rows.append(row)
    return rows


def steps_per_epoch(rows: list[dict[str, Any]]) -> float | None:
    """As rows tell it: `epoch` counts those that are whole, so a row at an epoch's end has it.

    None before the first epoch's end.
    """
    whole = [(row["step"], finite(row.get("epoch"))) for row in rows]
    return min((step / epoch for step, epoch in whole if epoch and epoch > 0), default=None)


def _within_an_epoch(rows: list[dict[str, Any]]) -> float:
    return max((float(row["step"]) for row in rows), default=0.0) + 1.0


def _curve(
    arm: int, seed: int, start: str, rows: list[dict[str, Any]], per_epoch: float
) -> Curve | None:
    key = next((key for row in rows for key in row if key.startswith(start)), None)
    if key is None:
        return None
    values = ((row["step"] / per_epoch, finite(row.get(key))) for row in rows)
    points = [(epoch, value) for epoch, value in values if value is not None]
    return Curve(arm, seed, points, per_epoch, line(key)) if points else None


def _mean(own: list[Curve]) -> Curve | None:
    """Over seeds, at the steps that all of them have."""
    at = [{round(x * c.steps_per_epoch): y for x, y in c.points} for c in own]
    shared = sorted(set.intersection(*(set(each) for each in at)))
    per_epoch = own[0].steps_per_epoch
    points = [(step / per_epoch, math.fsum(e[step] for e in at) / len(at)) for step in shared]
    return Curve(own[0].arm, None, points, per_epoch, own[0].key) if points else None
