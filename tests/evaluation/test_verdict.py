"""The verdict on what was measured of real runs (mnist-5k, d = 512), and near it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from scipy import stats

from simsiam_zoo.charts import dots
from simsiam_zoo.charts.dots import MARKED
from simsiam_zoo.evaluation.verdict import (
    Evidence,
    Verdict,
    judge,
    paired_gain,
)
from simsiam_zoo.studies.study import VerdictName

HEALTHY = Evidence(
    finite=True,
    first_loss=0.0,
    last_loss=-0.938,
    loss_minimum=-1.0,
    spread=1.00,
    rank=48.5,
    rank_limit=512,
    untrained_rank=9.8,
    gain=(0.165, 0.192, 0.219),
)
NO_GAIN = (-0.02, 0.0, 0.02)
NO_STOP_GRADIENT = replace(
    HEALTHY, spread=0.30, rank=2.3, last_loss=-0.952, untrained_rank=8.5, gain=NO_GAIN
)
# Without a predictor the loss starts lower: the two views of an image are alike from the start.
NO_PREDICTOR = replace(
    HEALTHY, spread=0.59, rank=2.5, first_loss=-0.5, last_loss=-0.992, untrained_rank=8.5
)
# The std does not show it.
PARTIAL = replace(HEALTHY, spread=0.9, rank=4.1, last_loss=-0.985, gain=NO_GAIN)
# Few directions, and yet the classes in them: Fashion-MNIST with a small network.
NARROW = replace(
    HEALTHY, rank=10.1, last_loss=-0.942, untrained_rank=224.9, gain=(0.072, 0.082, 0.092)
)
FULL = replace(HEALTHY, spread=0.0, rank=1.0, last_loss=-1.0, gain=(-0.7, -0.6, -0.5))
NO_PROJECTOR = replace(HEALTHY, spread=0.82, rank=182.0, last_loss=-0.833)
FIXED_RANDOM = replace(HEALTHY, spread=0.95, rank=3.0, last_loss=-0.15, gain=NO_GAIN)


def nearby(evidence: Evidence) -> list[Evidence]:
    """`evidence`, and what another seed may measure in its place."""
    assert evidence.rank is not None
    assert evidence.spread is not None
    assert evidence.last_loss is not None
    return [
        replace(
            evidence,
            rank=max(1.0, evidence.rank * rank),
            spread=min(1.0, evidence.spread * spread),
            last_loss=max(-1.0, evidence.last_loss * loss),
        )
        for rank in (0.6, 1.0, 1.5)
        for spread in (0.7, 1.0, 1.3)
        for loss in (0.9, 1.0, 1.05)
    ]


@pytest.mark.parametrize(
    ("evidence", "verdict"),
    [
        (HEALTHY, "learned"),
        (replace(HEALTHY, untrained_rank=None), "learned"),
        (replace(HEALTHY, gain=(-0.001, 0.02, 0.041)), "no-gain"),  # may be chance
        (NO_PROJECTOR, "learned"),
        (NO_STOP_GRADIENT, "collapsed"),
        (replace(NO_STOP_GRADIENT, gain=HEALTHY.gain), "collapsed"),  # whatever kNN makes of it
        (replace(NO_STOP_GRADIENT, gain=None), "collapsed"),  # seen without labels
        (NO_PREDICTOR, "collapsed"),
        (PARTIAL, "collapsed"),
        (replace(PARTIAL, gain=(0.008, 0.032, 0.056)), "collapsed"),  # a gain, and no clear one
        (NARROW, "learned"),
        (replace(NARROW, rank=3.0), "collapsed"),
        (replace(NARROW, rank=4.9, gain=None), "collapsed"),
        (FULL, "collapsed"),
        (FIXED_RANDOM, "no-gain"),  # paper, table 1 (b): no collapse, the loss stays high
        (replace(HEALTHY, gain=NO_GAIN), "no-gain"),
        (replace(HEALTHY, gain=(-0.3, -0.2, -0.1)), "worse"),
        (replace(HEALTHY, gain=None), "undetermined"),
        (replace(FIXED_RANDOM, gain=None), "undetermined"),
    ],
)
def test_the_verdict_has_a_margin(evidence, verdict):
    assert {judge(one)[0] for one in nearby(evidence)} == {verdict}


# Width, loss, std, rank, the untrained network's rank, kNN gain: `digits` with `projector.out_dim`.
WIDTHS = [
    (128, 128, -0.960, 0.99, 16.6, 99.1, (0.036, 0.064, 0.093), "learned"),
    (512, 512, -0.949, 1.00, 53.6, 268.4, (0.020, 0.049, 0.077), "learned"),
    (2048, 1024, -0.912, 1.00, 112.8, 324.9, (0.007, 0.038, 0.069), "learned"),
    (128, 128, -0.952, 0.30, 1.7, 99.1, (-0.271, -0.224, -0.178), "collapsed"),
    (512, 512, -0.950, 0.30, 3.0, 268.4, (-0.405, -0.356, -0.306), "collapsed"),
    (2048, 1024, -0.962, 0.28, 2.2, 324.9, (-0.196, -0.153, -0.111), "collapsed"),
    (128, 128, -0.984, 0.71, 3.2, 99.1, (-0.017, 0.013, 0.044), "collapsed"),
    (512, 512, -0.986, 0.73, 5.1, 268.4, (-0.003, 0.029, 0.061), "collapsed"),
    (2048, 1024, -0.979, 0.91, 11.0, 324.9, (-0.006, 0.024, 0.055), "collapsed"),
]


@pytest.mark.parametrize("measured", WIDTHS)
def test_the_bound_holds_at_other_widths(measured):
    """SimSiam, without the stop-gradient, without the predictor: each at three widths of z."""
    _, limit, loss, std, rank, untrained, gain, verdict = measured
    evidence = replace(
        HEALTHY,
        last_loss=loss,
        spread=std,
        rank=rank,
        rank_limit=limit,
        untrained_rank=untrained,
        gain=gain,
    )
    assert judge(evidence)[0] == verdict
    assert judge(replace(evidence, rank=1.1 * rank))[0] == verdict
    assert judge(replace(evidence, rank=0.9 * rank))[0] == verdict


def test_a_run_that_is_not_finite_diverged_whatever_else():
    for evidence in (HEALTHY, FULL, Evidence(finite=False)):
        assert judge(replace(evidence, finite=False))[0] == "diverged"


def test_the_low_rank_has_to_be_the_trainings_doing():
    few_from_the_start = replace(PARTIAL, rank=4.1, untrained_rank=3.9)
    assert judge(few_from_the_start)[0] == "no-gain"
    unknown_start = replace(PARTIAL, untrained_rank=None, first_loss=None)
    assert judge(unknown_start)[0] == "collapsed"
    assert judge(replace(PARTIAL, rank=None))[0] == "no-gain"
    # No evidence is not a low rank.
    assert judge(replace(PARTIAL, rank=math.nan))[0] == "no-gain"


def test_how_far_the_loss_went_is_measured_against_its_own_minimum():
    cross_entropy = replace(PARTIAL, first_loss=6.2, loss_minimum=0.0)
    assert judge(replace(cross_entropy, last_loss=0.9))[0] == "collapsed"
    assert judge(replace(cross_entropy, last_loss=5.9))[0] == "no-gain"
    assert judge(replace(cross_entropy, last_loss=5.9, loss_minimum=None))[0] == "collapsed"


def test_the_reason_names_the_evidence():
    assert judge(HEALTHY)[1].startswith("kNN gains +19.2 points")
    assert "+16.5 to +21.9" in judge(HEALTHY)[1]
    assert "effective rank 2.3 of 512 (untrained: 8.5)" in judge(NO_STOP_GRADIENT)[1]
    assert "-0.952" in judge(NO_STOP_GRADIENT)[1]
    assert "0.000" in judge(FULL)[1]


def test_the_gain_is_the_normal_interval_of_the_paired_differences():
    generator = torch.Generator().manual_seed(0)
    after = torch.rand(1000, generator=generator) < 0.94
    before = torch.rand(1000, generator=generator) < 0.80
    d = after.double().numpy() - before.double().numpy()
    low, mean, high = paired_gain(after, before)
    assert (low, high) == pytest.approx(stats.norm.interval(0.95, d.mean(), stats.sem(d)))
    assert mean == pytest.approx(d.mean())
    # By hand: 3 images gained and 1 lost, of 4; d = 1, 1, 1, -1.
    low, mean, high = paired_gain(
        torch.tensor([True, True, True, False]), torch.tensor([False, False, False, True])
    )
    assert (low, mean, high) == pytest.approx((0.5 - 1.959964 / 2, 0.5, 0.5 + 1.959964 / 2))
    # The images that both get right or wrong narrow it: unpaired, it would be far wider.
    same = torch.rand(500, generator=generator) < 0.5
    assert paired_gain(same, same) == (0, 0, 0)


@pytest.mark.parametrize(
    ("width", "rank", "verdict"), [(2, 1.9, "learned"), (4, 2.6, "learned"), (4, 1.4, "collapsed")]
)
def test_an_embedding_of_few_directions_may_use_few(width: int, rank: float, verdict: str) -> None:
    narrow = replace(HEALTHY, rank_limit=width, rank=rank, untrained_rank=0.99 * width)
    assert judge(narrow)[0] == verdict


def test_every_verdict_is_one_that_a_study_may_expect_and_that_charts_have_a_mark_for():
    known = set(get_args(Verdict))
    assert set(get_args(VerdictName)) == known
    assert set(MARKED) == {*known, "mixed"}
    templates = Path(dots.__file__).parent / "template"
    shapes, css = ((templates / name).read_text() for name in ("marks.svg", "chart.css"))
    for verdict in MARKED:
        assert f'id="m-{verdict}"' in shapes
        assert f".v-{verdict} " in css
