"""Gradient policies for more than two views of an image."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from simsiam_zoo.plugin import Batch, GradientPolicy, InputError, Siamese, StepOutput


class MultiCrop(GradientPolicy):
    """SimSiam on the views of multi-crop: each view is predicted to the large ones.

    With L large views, those of the largest size in the batch, and V views in all,

        L = mean of D(p_i, stopgrad(z_j)) over all views i and all large views j ≠ i

    as SwAV compares its views (arXiv:2006.09882 section 3.2): small views are predicted from, and
    never a target. With two large views and no small one it is SimSiam's loss.

    Args:
        predictors: "one" for all views; "by-size": small views have a predictor of their own, which
            starts as a copy, as arXiv:2602.05845 found to be needed. It is trained with the
            settings of the part `gradient` (`optim.parts.gradient`).
    """

    views = 0

    def __init__(self, *, predictors: str) -> None:
        super().__init__()
        self.by_size = predictors == "by-size"
        self.small_predictor: nn.Module | None = None

    def setup(self, siamese: Siamese) -> None:
        """Copy the predictor for the small views."""
        if not self.by_size:
            return
        if siamese.predictor in siamese.parts_after_step():
            raise InputError(
                "gradient multi-crop copies the predictor for small views, and this one is set"
                " after each step, which a copy is not",
                "Say --gradient multi-crop:predictors=one, or take a predictor that is trained.",
            )
        self.small_predictor = copy.deepcopy(siamese.predictor)

    def forward(self, siamese: Siamese, batch: Batch) -> StepOutput:
        """L (V - 1) pairs, [N, dim] each; z of the large views, whose figures a run tells."""
        z = [siamese.encode(x) for x in batch.views]  # [N, dim] each
        largest = max(x.shape[-1] for x in batch.views)
        large = [j for j, x in enumerate(batch.views) if x.shape[-1] == largest]
        if len(batch.views) < 2:
            raise InputError(
                "gradient multi-crop compares views of an image, and the augmentation gives one",
                "Say --augmentation multi-crop:large=2.",
            )
        pairs = []
        for i, own in enumerate(z):
            p = self._predict(siamese, own, small=i not in large)
            pairs += [(p, z[j].detach()) for j in large if j != i]
        return StepOutput(pairs, [z[j] for j in large])

    def _predict(self, siamese: Siamese, z: Tensor, small: bool) -> Tensor:
        if not small or self.small_predictor is None:
            return siamese.predict(z)
        p: Tensor = self.small_predictor(z)
        return p


class FastSiam(GradientPolicy):
    """FastSiam: each of K views is predicted to the mean of the others.

        L = 1/K sum over i of D(p_i, stopgrad(1/(K - 1) sum over j ≠ i of z_j))

    Pototzky, Sultan & Schmidt-Thieme, GCPR 2022, doi:10.1007/978-3-031-16788-1_4. The mean is of z
    as the projector gives it; D normalises the mean. With K = 2 it is SimSiam to the bit.

    Args:
        views: K.
        normalize: z is l2-normalised before the mean.
    """

    def __init__(self, *, views: int, normalize: bool) -> None:
        super().__init__()
        self.views = views
        self.normalize = normalize

    def forward(self, siamese: Siamese, batch: Batch) -> StepOutput:
        """K pairs, [N, dim] each; z of all views."""
        z = [siamese.encode(x) for x in batch.views]  # [N, dim] each
        targets = [each.detach() for each in z]
        if self.normalize:
            targets = [normalize(each, dim=1) for each in targets]
        pairs = []
        for i, own in enumerate(z):
            others = torch.stack([*targets[:i], *targets[i + 1 :]])  # [K - 1, N, dim]
            pairs.append((siamese.predict(own), others.mean(dim=0)))
        return StepOutput(pairs, z)
