"""Means, spreads and differences over seeds. Pure; no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

CONFIDENCE = 0.95


def mean_std(values: Sequence[float]) -> dict[str, Any] | None:
    """Mean and sample standard deviation; of one value no deviation, of none None."""
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return {"mean": mean, "std": None, "n": 1}
    squares = math.fsum((value - mean) ** 2 for value in values)
    return {"mean": mean, "std": math.sqrt(squares / (len(values) - 1)), "n": len(values)}


def paired_difference(arm: Mapping[int, float], base: Mapping[int, float]) -> dict[str, Any] | None:
    """Mean of arm - base over the seeds that both have, with its 95 % t-interval.

    Paired by seed: the same seed draws the same initialisation where the networks agree, the same
    order and the same views, so that much of the spread is common to both. The interval covers the
    choice of the seed, not that of the test images.

    Args:
        arm, base: value by seed.

    Returns:
        `mean`, `low`, `high`, `n`; no bounds from one seed, None from none.
    """
    seeds = sorted(arm.keys() & base.keys())
    spread = mean_std([arm[seed] - base[seed] for seed in seeds])
    if spread is None:
        return None
    mean, std, n = spread["mean"], spread["std"], spread["n"]
    if std is None:
        return {"mean": mean, "low": None, "high": None, "n": 1}
    from scipy.stats import t

    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * std / math.sqrt(n)
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}
