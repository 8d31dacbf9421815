"""Losses: a prediction p against a target z, both [N, dim], to a scalar."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from simsiam_zoo.model.siamese import Loss

_EPS = 1e-8
"""Norms below this count as this, so that zero vectors have a loss and a gradient."""


class CosineLoss(Loss):
    """D(p, z) = -cos(p, z), the batch's mean (arXiv:2011.10566 eq. 1); 0 at a zero vector."""

    minimum = -1.0

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[N, dim], [N, dim] → scalar in [-1, 1]."""
        return -functional.cosine_similarity(prediction, target, dim=1, eps=_EPS).mean()


class CrossEntropyLoss(Loss):
    """D(p, z) = -softmax(z) · log softmax(p) over channels (arXiv:2011.10566 section 4.5)."""

    minimum = 0.0

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[N, dim], [N, dim] → scalar >= 0, the mean over the batch."""
        log_q = functional.log_softmax(prediction, dim=1)
        return -(target.softmax(dim=1) * log_q).sum(dim=1).mean()


class MseLoss(Loss):
    """Squared distance.

    Args:
        normalize: True: |p/|p| - z/|z||² = 2 - 2 cos(p, z), the mean over the batch
            (arXiv:2006.07733 eq. 2). False: the mean of (p - z)² over all elements.
        scale: a factor. The model averages the loss over the policy's pairs; with 2 the mean over
            two directions is their sum, as BYOL has it (eq. 2 and the line below).
    """

    minimum = 0.0

    def __init__(self, *, normalize: bool, scale: float) -> None:
        super().__init__()
        self.normalize = normalize
        self.scale = scale

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[N, dim], [N, dim] → scalar >= 0."""
        if not self.normalize:
            return self.scale * functional.mse_loss(prediction, target)
        p = functional.normalize(prediction, dim=1, eps=_EPS)
        z = functional.normalize(target, dim=1, eps=_EPS)
        # the distance, not 2 - 2 cos, which rounds to below 0 where p and z are nearly parallel
        return self.scale * (p - z).square().sum(dim=1).mean()
