"""How embeddings lie in space: the signs of collapse.

What gives a tensor waits for no device: it is taken in the middle of training.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def spread(z: Tensor) -> Tensor:
    """Std of z/|z| over the batch, averaged over channels, times sqrt(d).

    1 for directions scattered evenly over the sphere, 0 for a constant output (arXiv:2011.10566,
    section 4.1). A partial collapse can hide from it: see `effective_rank`. z is [N, d].
    """
    scaled: Tensor = directions(z).std(dim=0).mean() * z.shape[1] ** 0.5
    return scaled


def alignment(u: Tensor, v: Tensor) -> Tensor:
    """Mean squared distance of two views' directions (arXiv:2005.10242, section 4.1; alpha 2).

    0 where the views of each image agree; 2 for independent directions, 4 for opposite ones. u and
    v are embeddings [N, d] of two views of the same images.
    """
    distance: Tensor = (directions(u) - directions(v)).square().sum(dim=1).mean()
    return distance


def uniformity(z: Tensor) -> Tensor:
    """Log of the mean of exp(-2 |u - u'|^2) over pairs of directions (ibid., section 4.1; t 2).

    0 where all directions are one; -4 + O(1/d) where they are scattered evenly over the sphere. In
    z [N, d], N >= 2, each pair of rows counts once.
    """
    potential: Tensor = torch.pdist(directions(z)).square().mul(-2).exp().mean().log()
    return potential


def directions(z: Tensor) -> Tensor:
    """z / |z| row by row, [N, d], in float32 at least; 0 where z is."""
    return F.normalize(z if z.dtype == torch.float64 else z.float(), dim=1)


def effective_rank(z: Tensor) -> float:
    """RankMe: exp of the entropy of the normalised singular values (arXiv:2210.02885, eq. 1-2).

    From 1 (all embeddings on one line) to min(N, d). Not centred, as in the paper. The paper adds
    1e-7 to each share of the singular values, so that log 0 is defined; here a share of 0 counts 0,
    which is its limit. For d = 2,048 the two differ by less than 0.3 %. 0 where all of z [N, d] is
    zero, NaN where something is not finite.
    """
    if not bool(torch.isfinite(z).all()):
        return math.nan
    return _exp_entropy(torch.linalg.svdvals(z.double()))


DECAY_RANKS = (11, 100)
"""First and last rank of the eigenvalues that `spectrum_decay` is fitted to."""

_FEWEST_RANKS = 10
_ROUNDING = 1e-12  # share of the largest eigenvalue below which one is rounding of float32


def spectrum_decay(features: Tensor) -> float | None:
    """alpha-ReQ: the alpha of lambda_i ~ i^-alpha (Agrawal et al., NeurIPS 2022, section 3).

    lambda_i are the eigenvalues of the features' [N, D] covariance, largest first. The line is
    fitted to log lambda over log i by least squares with weights 1 / i, as in the authors' code,
    over `DECAY_RANKS`, or fewer where eigenvalues vanish before; None where fewer than 10 are left.
    Near 1 the paper finds good features; larger where few directions hold the variance.
    """
    if not bool(torch.isfinite(features).all()):
        return None
    x = features.double()
    eigenvalues = torch.linalg.svdvals(x - x.mean(dim=0)).square()
    first, last = DECAY_RANKS
    known = int((eigenvalues > _ROUNDING * eigenvalues[0]).sum())
    if min(last, known) - first + 1 < _FEWEST_RANKS:
        return None
    rank = torch.arange(first, min(last, known) + 1, dtype=x.dtype)
    log_rank, log_value = rank.log(), eigenvalues[first - 1 : first - 1 + len(rank)].log()
    weight = (1 / rank) / (1 / rank).sum()
    centred = log_rank - weight @ log_rank
    return float(-((weight * centred) @ log_value) / ((weight * centred) @ centred))


LIDAR_RIDGE = 1e-4
"""What is added to the within-image covariance, as a share of a channel's mean variance."""


def lidar(z: Tensor) -> float:
    """LiDAR: how many directions tell images apart across views (arXiv:2312.04000, eq. 1-4).

    z is [V, N, d]: V views of N images. With each image a class of its views, Sb is the covariance
    of the images' means and Sw that of views around their image's mean; LiDAR is exp of the entropy
    of the normalised eigenvalues of Sw^-1/2 Sb Sw^-1/2, from 1 to min(N - 1, d). The paper adds
    1e-4 to Sw's diagonal; here it is that share of the channels' mean variance, so that the scale
    of z, which a cosine loss leaves open, does not matter. 0 where all of z is one point, NaN where
    something is not finite.
    """
    if not bool(torch.isfinite(z).all()):
        return math.nan
    x = z.double()
    views, images, d = x.shape
    means = x.mean(dim=0)  # [N, d]
    between = means - means.mean(dim=0)
    within = (x - means).reshape(-1, d)
    sw = within.T @ within / (views * images)
    variance = (between.square().sum() / images + sw.trace()) / d
    if variance == 0:
        return 0.0
    # Sw = L L^T: the eigenvalues are the squared singular values of L^-1 (means)^T / sqrt(N).
    cholesky = torch.linalg.cholesky(sw + LIDAR_RIDGE * variance * torch.eye(d, dtype=x.dtype))
    whitened = torch.linalg.solve_triangular(cholesky, between.T, upper=False)
    return _exp_entropy(torch.linalg.svdvals(whitened).square())


def shared_neighbours(u: Tensor, v: Tensor, k: int = 10) -> Tensor:
    """Of each image the share of its k nearest neighbours that two views agree on, [N], 0 to 1.

    u and v are features [N, D] of two views of the same N > k images; neighbours are the nearest
    other images by cosine, within one view. Independent views share k / (N - 1).
    """
    near = torch.zeros(2, len(u), len(u), dtype=torch.bool)
    for found, features in zip(near, (u, v), strict=True):
        similarity = directions(features) @ directions(features).T
        similarity.fill_diagonal_(-math.inf)
        found.scatter_(1, similarity.topk(k, dim=1).indices, True)
    return (near[0] & near[1]).sum(dim=1).double() / k


def _exp_entropy(values: Tensor) -> float:
    """exp of the entropy of values >= 0 as shares of their sum; 0 where all are 0."""
    total = values.sum()
    return float(torch.special.entr(values / total).sum().exp()) if total > 0 else 0.0
