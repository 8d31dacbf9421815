"""Means and differences over seeds, against scipy."""

from __future__ import annotations

import pytest
from scipy.stats import ttest_rel

from simsiam_zoo.studies.results import mean_std, paired_difference


def test_the_deviation_is_the_samples() -> None:
    assert mean_std([0.7, 0.8, 0.9]) == {
        "mean": pytest.approx(0.8),
        "std": pytest.approx(0.1),
        "n": 3,
    }


def test_one_seed_has_no_deviation_and_none_has_nothing() -> None:
    assert mean_std([0.5]) == {"mean": 0.5, "std": None, "n": 1}
    assert mean_std([]) is None
    assert paired_difference({0: 0.5}, {0: 0.75}) == {
        "mean": -0.25,
        "low": None,
        "high": None,
        "n": 1,
    }
    assert paired_difference({0: 0.5}, {1: 0.75}) is None


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    arm = {0: 0.91, 1: 0.90, 2: 0.93, 5: 0.2}
    base = {2: 0.95, 1: 0.94, 0: 0.94, 7: 0.9}  # in another order; seeds 5 and 7 are alone
    expected = ttest_rel([0.91, 0.90, 0.93], [0.94, 0.94, 0.95]).confidence_interval(0.95)
    found = paired_difference(arm, base)
    assert found is not None
    assert found["n"] == 3
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    assert found["mean"] == pytest.approx(-0.03)
