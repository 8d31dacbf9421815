"""Each view of an image against the mean of all its views, with gradient through both."""

from __future__ import annotations

import torch

from simsiam_zoo.plugin import Batch, GradientPolicy, Siamese, StepOutput


class ViewMean(GradientPolicy):
    """Pairs (p_v, c) for each view v, where c is the mean of z over the views (LeJEPA's centre).

    There is no target network and no stop-gradient: gradient flows through p_v and through c. With
    two views and no predictor |p_v - c|² is a quarter of |z_1 - z_2|².

    Args:
        views: V, fresh views of each image.
    """

    def __init__(self, *, views: int) -> None:
        super().__init__()
        self.views = views

    def forward(self, siamese: Siamese, batch: Batch) -> StepOutput:
        """V pairs of [N, dim] against the same [N, dim]."""
        z = [siamese.encode(x) for x in batch.views]  # V of [N, dim]
        wide = torch.float64 if z[0].dtype == torch.float64 else torch.float32
        centre = torch.stack([each.to(wide) for each in z]).mean(dim=0)  # [N, dim]
        return StepOutput([(siamese.predict(each), centre) for each in z], z)
