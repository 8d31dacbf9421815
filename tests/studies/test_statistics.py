"""Means, differences, power and corrections over seeds, against scipy, simulation and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_rel

from simsiam_zoo.studies.statistics import (
    ALPHA,
    correct,
    holm,
    mean_std,
    paired_difference,
    power,
    seeds_needed,
    smallest_difference,
    std_limits,
)


def test_the_deviation_is_the_samples() -> None:
    assert mean_std([0.7, 0.8, 0.9]) == {
        "mean": pytest.approx(0.8),
        "std": pytest.approx(0.1),
        "n": 3,
    }


def test_one_seed_has_no_deviation_and_none_has_nothing() -> None:
    assert mean_std([0.5]) == {"mean": 0.5, "std": None, "n": 1}
    assert mean_std([]) is None
    found = paired_difference({0: 0.5}, {0: 0.75})
    assert found is not None
    assert {key: value for key, value in found.items() if value is not None} == {
        "mean": -0.25,
        "n": 1,
    }
    assert paired_difference({0: 0.5}, {1: 0.75}) is None


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    arm = {0: 0.91, 1: 0.90, 2: 0.93, 5: 0.2}
    base = {2: 0.95, 1: 0.94, 0: 0.94, 7: 0.9}  # in another order; seeds 5 and 7 are alone
    test = ttest_rel([0.91, 0.90, 0.93], [0.94, 0.94, 0.95])
    expected = test.confidence_interval(0.95)
    found = paired_difference(arm, base)
    assert found is not None
    assert found["n"] == 3
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    assert found["mean"] == pytest.approx(-0.03)
    assert found["p"] == pytest.approx(test.pvalue)


def test_the_same_difference_with_every_seed_has_no_interval() -> None:
    found = paired_difference({0: 0.9, 1: 0.8}, {0: 0.6, 1: 0.5})  # equal but for rounding
    assert found is not None
    assert found["mean"] == pytest.approx(0.3)
    assert found["low"] is found["high"] is found["p"] is found["seeds_for"] is None


@pytest.mark.parametrize(("n", "ratio"), [(2, 8.0), (3, 3.2), (5, 1.0), (12, 0.9)])
def test_power_is_how_often_simulated_studies_find_the_difference(n: int, ratio: float) -> None:
    drawn = np.random.default_rng(0).normal(ratio * 0.02, 0.02, (20_000, n))
    share = float(np.mean(ttest_1samp(drawn, 0, axis=1).pvalue < ALPHA))
    assert power(ratio * 0.02, 0.02, n) == pytest.approx(share, abs=0.011)  # 3 standard errors


def test_power_at_no_difference_is_the_level_and_far_away_it_is_one() -> None:
    assert power(0.0, 0.02, 4) == pytest.approx(ALPHA)
    assert power(0.5, 0.02, 5) == pytest.approx(1.0)  # scipy's far tail is NaN here
    assert power(-0.03, 0.02, 6) == power(0.03, 0.02, 6)


def test_seeds_and_differences_are_those_of_published_tables() -> None:
    # Effect sizes of 0.5, 0.8 and 1: 34, 15 and 10 pairs (Cohen 1988; G*Power 3.1).
    assert [seeds_needed(d, 1.0) for d in (0.5, 0.8, 1.0)] == [34, 15, 10]
    assert seeds_needed(0.05, 0.001) == 2
    for n in (2, 3, 10, 40):
        just = smallest_difference(0.013, n)
        assert power(just, 0.013, n) == pytest.approx(0.8)
        assert seeds_needed(just * 1.001, 0.013) == n


def test_the_limits_of_a_deviation_hold_it_95_times_in_100() -> None:
    low, high = std_limits(3)
    drawn = np.random.default_rng(1).normal(0, 1, (20_000, 3)).std(axis=1, ddof=1)
    held = np.mean((low * drawn < 1) & (high * drawn > 1))
    assert held == pytest.approx(0.95, abs=0.005)


def test_holms_correction_by_hand() -> None:
    # Smallest first: 4 x 0.005, 3 x 0.01, 2 x 0.03, then 0.04, which may not fall below that.
    assert holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_each_metric_is_corrected_apart_over_the_arms_that_have_a_p() -> None:
    def told(p: float | None) -> dict[str, float | None]:
        return {"p": p}

    arms = [{"knn": told(0.02), "probe": told(0.03)}, {"knn": told(0.01)}, {"knn": told(None)}]
    correct(arms)
    assert arms[0]["knn"] == {"p": 0.02, "holm_p": 0.02, "holm_arms": 2}
    assert arms[1]["knn"] == {"p": 0.01, "holm_p": 0.02, "holm_arms": 2}
    assert arms[0]["probe"] == {"p": 0.03, "holm_p": 0.03, "holm_arms": 1}
    assert arms[2]["knn"] == {"p": None}
