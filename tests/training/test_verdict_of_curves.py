"""The verdict on recorded curves: digits, timm's `test_resnet` at 16 px, seed 0, rows thinned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from simsiam_zoo.evaluation.verdict import judge
from simsiam_zoo.model.siamese import Loss
from simsiam_zoo.training import conclude as collapse
from simsiam_zoo.training.setup import Setup

CURVES = Path(__file__).parents[1] / "fixtures" / "curves"

Curve = dict[str, Any]


def recorded(name: str) -> Curve:
    return dict(json.loads((CURVES / f"{name}.json").read_text()))


def point(curve: Curve, since: float) -> Curve:
    """The curve, as if all embeddings had fallen into a point at that share of the run."""
    rows = [
        row
        if row["step"] < since * curve["steps"] or "loss" not in row
        else {**row, "loss": -0.9995, "std_sqrt_d": 0.004}
        for row in curve["rows"]
    ]
    return {**curve, "rows": rows, "rank": 1.0, "gain": [-0.9, -0.85, -0.8]}


def verdict(curve: Curve, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(collapse, "monitor_ids", lambda setup: range(curve["rank_limit"]))
    loss = Loss()
    loss.minimum = curve["loss_minimum"]
    siamese = SimpleNamespace(dim=512, loss=loss)
    whole = SimpleNamespace(begin=0, change=None)  # nothing was changed on the way
    setup = SimpleNamespace(
        siamese=siamese, init={}, stages=[whole], changes=0, plan=SimpleNamespace(steps=21)
    )
    seen = collapse.gather_evidence(
        cast(Setup, setup),
        curve["rows"],
        curve["steps"],
        curve["rank"],
    )
    gain = None if curve["gain"] is None else tuple(curve["gain"])
    return judge(replace(seen, untrained_rank=curve["untrained_rank"], gain=gain))[0]


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (recorded("healthy"), "learned"),
        (recorded("no-stop-gradient"), "collapsed"),
        (recorded("no-predictor"), "collapsed"),  # in part: std 0.61, effective rank 2.1
        (recorded("short"), "no-gain"),
        (point(recorded("healthy"), 0.0), "collapsed"),  # in full, from the start
        (point(recorded("healthy"), 0.9), "collapsed"),  # late
        ({**recorded("healthy"), "gain": None}, "undetermined"),
    ],
)
def test_the_verdict_on_a_recorded_curve(curve, expected, monkeypatch) -> None:
    assert verdict(curve, monkeypatch) == expected


def test_a_dip_that_the_run_came_back_from_is_no_collapse(monkeypatch) -> None:
    curve = recorded("healthy")
    early = [
        {**row, "std_sqrt_d": 0.01} if "loss" in row and row["step"] < 100 else row
        for row in curve["rows"]
    ]
    assert verdict({**curve, "rows": early}, monkeypatch) == "learned"
