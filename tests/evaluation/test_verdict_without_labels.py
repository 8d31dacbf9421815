"""The verdict without labels beside the one with them, on what was measured of real runs.

`digits`, timm's `test_resnet` at 16 px, 24 epochs unless said otherwise: each run was measured with
its labels and without.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from simsiam_zoo.evaluation.verdict import Evidence, ViewFigures, WithoutLabels, judge

FILE = Path(__file__).parents[1] / "fixtures" / "without_labels.json"
RECORDED = json.loads(FILE.read_text())

recorded = pytest.mark.parametrize(
    "row", RECORDED, ids=lambda row: f"{row['arm']}, seed {row['seed']}"
)


def evidence(row: dict[str, Any]) -> Evidence:
    """What was measured: with the gain that labels tell, and with the views' figures."""
    views = WithoutLabels(
        ViewFigures(*row["trained"]),
        ViewFigures(*row["untrained"]),
        tuple(row["shared_gain"]),
        row["lidar_limit"],
        images=256,
        views=8,
        rank_course=tuple((step, rank) for step, rank in row["rank_course"]),
    )
    same = ("first_loss", "last_loss", "spread", "rank", "rank_limit", "untrained_rank")
    return Evidence(
        finite=True,
        loss_minimum=-1.0,
        gain=tuple(row["gain"]),
        without_labels=views,
        **{name: row[name] for name in same},
    )


@recorded
def test_the_verdict_without_labels_agrees_with_the_one_with_them(row):
    measured = evidence(row)
    with_labels, without = judge(measured)[0], judge(replace(measured, gain=None))[0]
    assert with_labels == row["with_labels"]
    agreeing = {"learned": "no-collapse-seen", "collapsed": "collapsed"}
    expected = agreeing.get(with_labels)
    assert without == expected or (expected is None and without != "collapsed")
    if row["arm"] in ("lr of nothing, 2 epochs", "fixed random predictor"):
        assert without == "undetermined"


@recorded
def test_the_views_alone_clear_no_run_that_collapsed(row):
    """As if the rank were healthy; and with a margin, as another seed may measure.

    Early in a collapse LiDAR and the neighbours may both look healthy: the rank alone shows it.
    """
    if "epoch" in row["arm"]:
        pytest.skip("not trained to its end")
    for factor in (0.9, 1.0, 1.1):
        measured = replace(evidence(row), gain=None, rank=100.0, spread=1.0)
        views = replace(measured.without_labels, rank_course=())
        trained = replace(views.trained, lidar=factor * views.trained.lidar)
        verdict, reason = judge(replace(measured, without_labels=replace(views, trained=trained)))
        if row["with_labels"] == "collapsed":
            assert verdict == "undetermined", reason
            assert "few directions tell images apart" in reason or "share no more" in reason
        elif row["with_labels"] == "learned":
            assert verdict == "no-collapse-seen", reason


def test_the_verdict_says_why_there_is_no_gain_and_claims_no_more_than_was_seen():
    seen = replace(evidence(RECORDED[0]), gain=None, unmeasured="there are no test images")
    verdict, reason = judge(seen)
    assert verdict == "no-collapse-seen"
    assert "there are no test images, so what it learned is open" in reason
    for lacking in (replace(seen, without_labels=None), replace(seen, rank=None)):
        verdict, reason = judge(lacking)
        assert verdict == "undetermined"
        assert "nothing to compare with the untrained network" in reason
    assert judge(replace(seen, rank=math.nan))[0] == "undetermined"  # no evidence clears no run
    assert judge(replace(seen, finite=False))[0] == "diverged"


def test_a_rank_that_is_still_falling_clears_no_run():
    """Six epochs on 600 digits without the stop-gradient; with more it collapses."""
    seen = replace(evidence(RECORDED[0]), gain=None, rank=18.0)
    for course, verdict in (
        ([(9, 103), (18, 39), (27, 43), (36, 26), (45, 18), (54, 18)], "undetermined"),
        ([(9, 103), (18, 39), (27, 19), (36, 17), (45, 18), (54, 18)], "no-collapse-seen"),
        ([(54, 18)], "no-collapse-seen"),
    ):
        views = replace(seen.without_labels, rank_course=tuple(course))
        assert judge(replace(seen, without_labels=views))[0] == verdict
