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
    sigma = torch.linalg.svdvals(z.double())
    total = sigma.sum()
    if total == 0:
        return 0.0
    p = sigma / total
    return float(torch.special.entr(p).sum().exp())
