from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from simsiam_zoo.evaluation.geometry import alignment, effective_rank, spread, uniformity


def gaussian(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_spread_is_1_for_all_directions_and_0_for_one():
    assert spread(gaussian(4096, 128)).item() == pytest.approx(1, abs=0.01)
    constant = gaussian(1, 128).expand(64, 128)
    assert spread(constant).item() == pytest.approx(0, abs=1e-12)
    assert spread(torch.zeros(8, 4)).item() == 0  # no direction at all, and no NaN


def test_spread_is_the_papers_formula_and_knows_no_lengths():
    z = gaussian(50, 12) @ gaussian(12, 12, seed=1)
    unit = z.numpy() / np.linalg.norm(z.numpy(), axis=1, keepdims=True)
    expected = unit.std(axis=0, ddof=1).mean() * math.sqrt(12)
    assert spread(z).item() == pytest.approx(expected, rel=1e-12)
    lengths = gaussian(50, 1, seed=2).exp()
    assert spread(z * lengths).item() == pytest.approx(expected, rel=1e-12)
    assert spread(z.bfloat16()).item() == pytest.approx(expected, rel=0.01)
    assert spread(z.bfloat16()).dtype == torch.float32


def test_effective_rank_of_what_is_known():
    assert effective_rank(torch.eye(7)) == pytest.approx(7)
    assert effective_rank(torch.outer(gaussian(9, 1)[:, 0], gaussian(4, 1)[:, 0])) == (
        pytest.approx(1)
    )
    assert effective_rank(torch.ones(9, 4)) == pytest.approx(1)  # not centred
    # Singular values 3 and 1: p = (3/4, 1/4).
    two = torch.diag(torch.tensor([3.0, 1.0]))
    assert effective_rank(two) == pytest.approx(4 / 3**0.75)
    wide, tall = gaussian(5, 40), gaussian(40, 5)
    assert 1 < effective_rank(wide) < 5
    assert 1 < effective_rank(tall) < 5


def test_effective_rank_is_the_papers_formula_and_knows_no_scale_or_rotation():
    z = gaussian(60, 20) @ torch.diag(torch.logspace(0, -3, 20, dtype=torch.float64))
    sigma = np.linalg.svd(z.numpy(), compute_uv=False)
    p = sigma / sigma.sum()
    expected = math.exp(-(p * np.log(p)).sum())
    rotation, _ = torch.linalg.qr(gaussian(20, 20, seed=1))
    assert effective_rank(z) == pytest.approx(expected, rel=1e-10)
    assert effective_rank(z * 1e-6) == pytest.approx(expected, rel=1e-10)
    assert effective_rank(z @ rotation) == pytest.approx(expected, rel=1e-10)


def test_effective_rank_of_nothing_and_of_what_is_not_finite():
    assert effective_rank(torch.zeros(5, 3)) == 0
    for bad in (math.nan, math.inf):
        z = torch.eye(3)
        z[1, 2] = bad
        assert math.isnan(effective_rank(z))


def test_alignment_and_uniformity_are_the_papers_double_loops():
    u, v = (gaussian(13, 6, seed) * gaussian(13, 1, seed + 5).exp() for seed in (0, 1))
    a, b = ([row / np.linalg.norm(row) for row in x.numpy()] for x in (u, v))
    expected = sum(((x - y) ** 2).sum() for x, y in zip(a, b, strict=True)) / 13
    assert alignment(u, v).item() == pytest.approx(expected, rel=1e-12)
    total, pairs = 0.0, 0
    for i in range(13):
        for j in range(13):
            if i != j:
                total += math.exp(-2 * ((a[i] - a[j]) ** 2).sum())
                pairs += 1
    assert uniformity(u).item() == pytest.approx(math.log(total / pairs), rel=1e-12)
    assert alignment(u.bfloat16(), v.bfloat16()).dtype == torch.float32
    assert uniformity(u.bfloat16()).item() == pytest.approx(math.log(total / pairs), rel=0.02)


def test_alignment_and_uniformity_of_what_is_known():
    u = gaussian(512, 256)
    assert alignment(u, 3 * u).item() == pytest.approx(0, abs=1e-12)
    assert alignment(u, -u).item() == pytest.approx(4)
    assert alignment(u, gaussian(512, 256, seed=1)).item() == pytest.approx(2, abs=0.02)
    assert uniformity(u[:1].expand(9, 256)).item() == pytest.approx(0, abs=1e-12)
    # E exp(-4 + 4 cos) over the sphere is 0F1(; d/2; 4) exp(-4), nearly exp(8 / d - 4)
    assert uniformity(u).item() == pytest.approx(8 / 256 - 4, abs=0.01)
    assert uniformity(torch.zeros(4, 3)).item() == 0  # no direction at all, and no NaN
