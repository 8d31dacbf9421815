"""Gradient policies: which p meets which z, and whether gradient flows into z."""

from __future__ import annotations

from torch import Tensor

from simsiam_zoo.errors import InputError
from simsiam_zoo.model.siamese import Batch, GradientPolicy, Siamese, StepOutput


class _PairedViews(GradientPolicy):
    """Views two by two, each pair's p against the other's z.

    Args:
        sides: "both": D(p1, z2) and D(p2, z1); "one": D(p1, z2) alone
            (arXiv:2011.10566 section 4.6).
        pairs: pairs of fresh views per image; 2 makes up for one side in the number of
            comparisons (section 4.6).
    """

    def __init__(self, *, sides: str = "both", pairs: int = 1) -> None:
        super().__init__()
        if sides not in ("both", "one"):
            raise InputError(f"sides is one of both, one, not {sides!r}")
        self.sides = sides
        self.views = 2 * pairs

    def target(self, z: Tensor) -> Tensor:
        """What a prediction is compared with, [N, dim]."""
        raise NotImplementedError

    def forward(self, siamese: Siamese, batch: Batch) -> StepOutput:
        """One or two (prediction, target) for each pair of views, all [N, dim]."""
        pairs, embeddings = [], []
        for x1, x2 in zip(batch.views[0::2], batch.views[1::2], strict=True):  # [N, 3, H, W] each
            z1, z2 = siamese.encode(x1), siamese.encode(x2)  # [N, dim] each
            embeddings += [z1, z2]
            p1 = siamese.predict(z1)  # [N, dim]
            pairs.append((p1, self.target(z2)))
            if self.sides == "both":
                p2 = siamese.predict(z2)  # [N, dim]
                pairs.append((p2, self.target(z1)))
        return StepOutput(pairs, embeddings)


class StopGradient(_PairedViews):
    """SimSiam: L = D(p1, stopgrad(z2)) / 2 + D(p2, stopgrad(z1)) / 2 (arXiv:2011.10566 eq. 4)."""

    def target(self, z: Tensor) -> Tensor:
        """z as a constant."""
        return z.detach()


class NoStopGradient(_PairedViews):
    """L = D(p1, z2) / 2 + D(p2, z1) / 2, gradient through both sides (section 4.1); collapses."""

    def target(self, z: Tensor) -> Tensor:
        """z itself."""
        return z
