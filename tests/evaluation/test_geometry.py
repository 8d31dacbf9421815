from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import linalg
from sklearn.neighbors import NearestNeighbors

from simsiam_zoo.evaluation.geometry import (
    alignment,
    effective_rank,
    lidar,
    shared_neighbours,
    spectrum_decay,
    spread,
    uniformity,
)


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


def test_a_power_laws_spectrum_has_its_exponent():
    """Rows whose centred singular values are known: U orthonormal and orthogonal to 1."""
    rank = torch.arange(1, 129, dtype=torch.float64)
    basis, _ = torch.linalg.qr(torch.cat([torch.ones(300, 1), gaussian(300, 128)], dim=1))
    for alpha in (0.5, 1.0, 2.0):
        features = basis[:, 1:] * rank ** (-alpha / 2) + 7.0  # the covariance is centred
        assert spectrum_decay(features) == pytest.approx(alpha, abs=1e-9)
    # The first ten do not count, nor what is beyond the hundredth.
    bent = rank ** (-1.5)
    bent[:10] *= 100
    bent[100:] /= 100
    assert spectrum_decay(basis[:, 1:] * bent.sqrt()) == pytest.approx(1.5, abs=1e-9)
    # Against numpy's weighted fit, of a spectrum that is no power law.
    z = gaussian(400, 64)
    eigenvalues = np.linalg.eigvalsh(np.cov(z.numpy().T))[::-1][10:]
    i = np.arange(11, 65)
    slope, _ = np.polyfit(np.log(i), np.log(eigenvalues), 1, w=i**-0.5)
    assert spectrum_decay(z) == pytest.approx(-slope, rel=1e-9)
    # 20 directions hold all of it: ten ranks from the 11th on; 19 are too few.
    low = basis[:, 1:21] @ gaussian(20, 50, seed=3)
    assert spectrum_decay(low) is not None
    assert spectrum_decay(low[:, :19]) is None
    assert spectrum_decay(low[:, :3]) is None  # fewer eigenvalues than the first that is fitted
    assert spectrum_decay(torch.ones(40, 30)) is None
    assert spectrum_decay(torch.full((40, 30), math.nan)) is None


def clustered(views: int, images: int, d: int, noise: float) -> torch.Tensor:
    means, spread_of = gaussian(images, d, seed=4), gaussian(d, d, seed=5)
    z = [means + noise * gaussian(images, d, seed=6 + v) for v in range(views)]
    return torch.stack(z) @ spread_of


def test_lidar_is_the_papers_formula():
    """Sb and Sw image by image, and scipy's matrix root, as arXiv:2312.04000 writes it."""
    z = clustered(6, 40, 12, noise=0.5)
    means, overall = z.mean(dim=0), z.mean(dim=(0, 1))
    sb = sum(torch.outer(m - overall, m - overall) for m in means) / 40
    sw = sum(torch.outer(x - m, x - m) for view in z for x, m in zip(view, means, strict=True))
    sw = sw / 240
    ridge = 1e-4 * float((sb + sw).trace()) / 12
    root = linalg.fractional_matrix_power((sw + ridge * torch.eye(12)).numpy(), -0.5)
    eigenvalues = linalg.eigvalsh(root @ sb.numpy() @ root)
    p = eigenvalues / eigenvalues.sum()
    assert lidar(z) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-8)
    assert lidar(1e-3 * z + 5.0) == pytest.approx(lidar(z), rel=1e-6)


def test_lidar_counts_the_directions_that_tell_images_apart():
    """Of 24 directions, images differ in as many as `kept`; the views' noise is in all."""
    for kept in (1, 4, 24):
        means = torch.zeros(2000, 24, dtype=torch.float64)
        means[:, :kept] = 10 * gaussian(2000, kept)
        z = torch.stack([means + 0.01 * gaussian(2000, 24, seed=9 + v) for v in range(4)])
        assert lidar(z) == pytest.approx(kept, rel=0.02)
    assert lidar(torch.ones(4, 9, 5)) == 0
    # More channels than the images have differences: the limit is N - 1.
    assert 1 < lidar(clustered(3, 10, 50, noise=0.1)) <= 9 + 1e-9
    assert math.isnan(lidar(torch.full((2, 9, 5), math.inf)))


def test_the_neighbours_that_views_share():
    features = gaussian(60, 8)
    assert shared_neighbours(features, 3 * features).tolist() == [1.0] * 60
    # Against sklearn's search, image by image.
    other = features + 0.5 * gaussian(60, 8, seed=1)
    near = [
        NearestNeighbors(n_neighbors=5, metric="cosine").fit(x).kneighbors(return_distance=False)
        for x in (features.numpy(), other.numpy())
    ]
    expected = [len(set(a) & set(b)) / 5 for a, b in zip(*near, strict=True)]
    assert shared_neighbours(features, other, k=5).tolist() == pytest.approx(expected)
    # Views that have nothing in common agree by chance: k of the others.
    chance = shared_neighbours(gaussian(2001, 8), gaussian(2001, 8, seed=1), k=100).mean()
    assert float(chance) == pytest.approx(100 / 2000, rel=0.05)
