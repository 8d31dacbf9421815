"""Guided stop-gradient: which view is the target is decided for each image anew."""

from __future__ import annotations

import torch
from torch import Tensor

from simsiam_zoo.plugin import Batch, GradientPolicy, Siamese, StepOutput


class GuidedStopGradient(GradientPolicy):
    """Of each image's two views, the one nearer to another image gets predictor and gradient.

    Two images refer to each other. Of the four distances between a view of one and a view of the
    other the smallest is found; the two views that it joins are predicted from, each towards the
    other view of its own image, which is a constant. So images that lie close are drawn apart by
    the attraction of their own views (Lee & Lee, NeurIPS 2023, arXiv:2503.09058): with the
    smallest distance between z_11 and z_21,

        L = D(p_11, stopgrad(z_12)) / 2 + D(p_21, stopgrad(z_22)) / 2

    In the paper an image is an anchor with two views and refers to another image with two views of
    its own, so that its four views serve one pair. Here each image is anchor and reference at once,
    with the same two views: half as many encodings for each image, and the formula is the same.

    Images i and i + N/2 of the batch refer to each other (the batch's order is random); with N odd,
    i + (N - 1)/2 is what i refers to. Distances are Euclidean, of z as it is. Among several
    processes the other image is of the same rank's batch.
    """

    def forward(self, siamese: Siamese, batch: Batch) -> StepOutput:
        """One (prediction, target), both [N, dim]: one view of each image against its other."""
        x1, x2 = batch.views  # [N, 3, H, W] each
        z1, z2 = siamese.encode(x1), siamese.encode(x2)  # [N, dim] each
        p1, p2 = siamese.predict(z1), siamese.predict(z2)  # [N, dim] each
        first = first_is_nearer(z1.detach(), z2.detach())[:, None]  # [N, 1]
        pair = torch.where(first, p1, p2), torch.where(first, z2, z1).detach()
        return StepOutput([pair], (z1, z2))


def first_is_nearer(z1: Tensor, z2: Tensor) -> Tensor:
    """Whether the first view has the smallest of the four distances, [N] bool; also if both do.

    Args:
        z1, z2: [N, dim] of the first and second views, without gradient.
    """
    wide = torch.float64 if z1.dtype == torch.float64 else torch.float32
    views = torch.stack([z1, z2]).to(wide)  # [2, N, dim]
    others = views.roll(-(len(z1) // 2), dims=1)
    distances = (views[:, None] - others[None]).norm(dim=-1)  # [2, 2, N]: own view, other's view
    own = distances.amin(dim=1)  # [2, N]
    nearer: Tensor = own[0] <= own[1]
    return nearer
