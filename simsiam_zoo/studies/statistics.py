"""How sure a study is of its differences: Student's t over seeds, paired; power; Holm's correction.

Differences and spreads are shares (0.02 is two points), except where points are named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
"""Of two-sided tests; an interval covers 1 - ALPHA."""
POWER = 0.8
"""Chance that a difference is found, for what counts as one that seeds can tell."""
POINTS = (1, 2, 5)
"""Differences for which the seeds are stated that would tell them."""

_NO_SPREAD = 1e-9  # shares are counts of images: a smaller deviation is one of rounding


def mean_std(values: Sequence[float]) -> dict[str, Any] | None:
    """Mean and sample standard deviation; of one value no deviation, of none None."""
    if not values:
        return None
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": math.fsum(values) / len(values), "std": std, "n": len(values)}


def paired_difference(arm: Mapping[int, float], base: Mapping[int, float]) -> dict[str, Any] | None:
    """The difference arm - base (value by seed) over the seeds of both; None where there are none.

    The same seed draws the same initialisation where the networks agree, the same order and the
    same views, so that much of the spread is common to both. All of it covers the choice of the
    seed, not that of the test images. From one seed, or from seeds that all have the same
    difference, there is no spread to judge by: all but the mean is None.

    Returns:
        mean, std (of the differences) and n; low and high, the 95 % t-interval; p, of the paired
        t-test; detectable, as `smallest_difference`; seeds_for, by points as `seeds_needed`;
        holm_p and holm_arms are filled in by `correct`.
    """
    differences = [arm[seed] - base[seed] for seed in sorted(arm.keys() & base.keys())]
    found = mean_std(differences)
    if found is None:
        return None
    names = ("low", "high", "p", "holm_p", "holm_arms", "detectable", "seeds_for")
    found |= dict.fromkeys(names)
    std = found["std"]
    if std is None or not std > _NO_SPREAD:
        return found
    from scipy.stats import ttest_1samp

    test = ttest_1samp(differences, 0.0)
    low, high = test.confidence_interval(1 - ALPHA)
    return found | {
        "low": float(low),
        "high": float(high),
        "p": float(test.pvalue),
        "detectable": smallest_difference(std, found["n"]),
        "seeds_for": {str(points): seeds_needed(points / 100, std) for points in POINTS},
    }


def paired_by_image(right: NDArray[np.bool_], base: NDArray[np.bool_]) -> dict[str, Any]:
    """The difference in accuracy of two networks on the same N >= 2 images: [N] bool each.

    The 95 % interval is the normal one of the mean of the differences image by image, p is of
    McNemar's exact test. Both cover the choice of test images, not that of the seed.

    Returns:
        mean, low, high, p; gained and lost (images that the first, and that the second alone got
        right) and n.
    """
    from scipy.stats import binomtest

    n, gained, lost = len(right), int((right & ~base).sum()), int((base & ~right).sum())
    mean = (gained - lost) / n
    spread = math.sqrt(((gained + lost) / n - mean**2) / (n - 1))
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    half = 1.959964 * spread
    counts = {"gained": gained, "lost": lost, "n": n}
    return {"mean": mean, "low": mean - half, "high": mean + half, "p": p, **counts}


def power(difference: float, std: float, n: int) -> float:
    """Chance that n pairs, whose differences have this mean and deviation, differ in the t-test."""
    from scipy.stats import nct, t

    shift, limit = abs(difference) / std * math.sqrt(n), t.ppf(1 - ALPHA / 2, n - 1)
    # The far tail is NaN in scipy where it is next to nothing.
    return float(nct.sf(limit, n - 1, shift) + np.nan_to_num(nct.cdf(-limit, n - 1, shift)))


def smallest_difference(std: float, n: int) -> float:
    """The difference that n pairs find with the chance POWER; `std`: of the paired differences."""
    from scipy.optimize import brentq

    # In units of the deviation; two pairs need 11, more need less.
    return std * float(brentq(lambda d: power(d, 1.0, n) - POWER, 0.0, 20.0))


def seeds_needed(difference: float, std: float) -> int:
    """How many pairs, two at least, find such a difference with the chance POWER."""
    from scipy.stats import norm

    # With a known deviation fewer would do: the search begins there, and is short.
    known = (norm.ppf(1 - ALPHA / 2) + norm.ppf(POWER)) * std / difference
    n: int = max(2, math.floor(known**2))
    while power(difference, std, n) < POWER:
        n += 1
    return n


def std_limits(n: int) -> tuple[float, float]:
    """Between how many times the deviation that n values have the true one is, by 95 %."""
    from scipy.stats import chi2

    low, high = chi2.ppf([1 - ALPHA / 2, ALPHA / 2], n - 1)
    return math.sqrt((n - 1) / low), math.sqrt((n - 1) / high)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction (1979): p-values that may each be held against the level of all tests."""
    corrected, worst = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        worst = max(worst, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = worst
    return corrected


def correct(differences: Sequence[Mapping[str, dict[str, Any]]]) -> None:
    """Fill in Holm's p over the arms; `differences`: of each arm by metric. Metrics stand apart."""
    for metric in dict.fromkeys(name for arm in differences for name in arm):
        found = [arm[metric] for arm in differences if metric in arm]
        tested = [each for each in found if each["p"] is not None]
        for each, p in zip(tested, holm([each["p"] for each in tested]), strict=True):
            each |= {"holm_p": p, "holm_arms": len(tested)}
