"""How embeddings lie in space: the signs of collapse."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def spread(z: Tensor) -> Tensor:
    """Std of z/|z| over the batch, averaged over channels, times sqrt(d).

    1 for directions scattered evenly over the sphere, 0 for a constant output (arXiv:2011.10566,
    section 4.1). A partial collapse can hide from it: see `effective_rank`.

    Args:
        z: embeddings [N, d].

    Returns:
        A scalar tensor on z's device; nothing waits for the device here.
    """
    direction = F.normalize(z.float() if z.dtype != torch.float64 else z, dim=1)
    scaled: Tensor = direction.std(dim=0).mean() * z.shape[1] ** 0.5
    return scaled


def effective_rank(z: Tensor) -> float:
    """RankMe: exp of the entropy of the normalised singular values (arXiv:2210.02885, eq. 1-2).

    From 1 (all embeddings on one line) to min(N, d). Not centred, as in the paper.

    Args:
        z: embeddings [N, d]; the rank is 0 where all are zero, NaN where one is not finite.
    """
    if not bool(torch.isfinite(z).all()):
        return math.nan
    sigma = torch.linalg.svdvals(z.double())
    total = sigma.sum()
    if total == 0:
        return 0.0
    p = sigma / total
    return float(torch.special.entr(p).sum().exp())
