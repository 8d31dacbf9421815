"""SimSiam as five parts, in the paper's letters (Chen & He 2020, arXiv:2011.10566, algorithm 1).

    x1, x2   two views of the same images
    f        the encoder, backbone then projector: z = f(x)
    h        the predictor: p = h(z)
    D        the loss, which compares a prediction p with a target z

What is compared with what, and where gradient flows, is the fourth part, the gradient policy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.errors import InputError


@dataclass
class Batch:
    """Views of the same N images, and which images they are.

    Args:
        views: one tensor [N, 3, H, W] for each view that the gradient policy asks for.
        ids: [N] int64, dense 0..n-1 over the training set; None in stream mode.
        labels: [N] int64, -1 where there is none. No part sees them in training.
    """

    views: list[Tensor]
    ids: Tensor | None = None
    labels: Tensor | None = None


class GradientPolicy(nn.Module):
    """Base of the gradient policies: what is compared with what, and where gradient flows.

    State lives in its `state_dict` and is equal on all ranks; what it keeps for each sample may be
    shared out over ranks instead (`per_sample_state`). Beside `forward` a policy may define
    `setup(siamese)`, `after_step(siamese, step, steps)` and `prepare(siamese, batches)`. The last
    is called before each block of `lookahead` steps, with an iterator over the very batches that
    follow (fewer at the end of the run), under the step's autocast and without gradient.
    """

    views: int = 2
    """How many views of each image it compares."""
    lookahead: int = 0
    """How many coming batches `prepare` is shown; 0: none, `prepare` is not called."""
    needs_ids: bool = False
    """True: refuse data that has no sample ids."""

    def per_sample_state(self) -> dict[str, Tensor]:
        """What is kept for each sample: buffers in no `state_dict`, [samples / ranks, ...].

        Row i of rank r's is sample i x world size + r. The checkpoint holds all ranks' rows, and a
        run that goes on with another number of ranks gets them shared out anew, in place.
        """
        return {}

    def forward(self, siamese: Siamese, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """Pairs (prediction, target), each [N, dim]; the model averages the loss over them."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward(siamese, batch)")


class Siamese(nn.Module):
    """Five parts, wired.

    Args:
        backbone: [N, 3, H, W] → features [N, in_dim].
        projector: [N, in_dim] → z [N, dim].
        predictor: z → p, both [N, dim].
        gradient: the policy, which gives the pairs (prediction, target).
        loss: (prediction, target) → scalar.
        in_dim: width of the backbone's features.
        dim: width of z and p.

    Attributes:
        latest: z of each view, by its place in the batch, from the last forward pass in training
            mode, detached. A view that the policy does not encode is missing; anything else that
            it encodes is at `gradient.views`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Module,
        predictor: nn.Module,
        gradient: GradientPolicy,
        loss: nn.Module,
        *,
        in_dim: int,
        dim: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        self.predictor = predictor
        self.gradient = gradient
        self.loss = loss
        self.in_dim = in_dim
        self.dim = dim
        self.latest: dict[int, Tensor] = {}
        self._views: list[Tensor] = []

    def encode(self, x: Tensor) -> Tensor:
        """z = f(x). One view at a time, since BN's statistics are those of one view."""
        y = self.backbone(x)  # [N, 3, H, W] → [N, in_dim]
        z: Tensor = self.projector(y)  # [N, in_dim] → [N, dim]
        if self.training and self._views:
            places = (place for place, view in enumerate(self._views) if view is x)
            self.latest[next(places, self.gradient.views)] = z.detach()
        return z

    def predict(self, z: Tensor) -> Tensor:
        """p = h(z), [N, dim] → [N, dim]."""
        p: Tensor = self.predictor(z)
        return p

    def forward(self, batch: Batch) -> Tensor:
        """The step's loss: the mean of D over the policy's pairs, a scalar.

        Raises:
            InputError: the batch has another number of views than the policy compares.
        """
        if len(batch.views) != self.gradient.views:
            raise InputError(
                f"the batch has {len(batch.views)} views of each image,"
                f" and the gradient policy compares {self.gradient.views}"
            )
        self.latest, self._views = {}, batch.views
        try:
            pairs = self.gradient(self, batch)
        finally:
            self._views = []  # what is encoded between steps is none of the step's views
        return torch.stack([self._compare(p, z) for p, z in pairs]).mean()

    def _compare(self, p: Tensor, z: Tensor) -> Tensor:
        # half precision has too few digits for a cosine near -1
        with torch.autocast(p.device.type, enabled=False):
            loss: Tensor = self.loss(_at_least_float32(p), _at_least_float32(z))
        return loss


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def parameter_counts(siamese: Siamese) -> dict[str, int]:
    """Numbers of parameters by part, trained or not, in the order of `PARTS`."""
    return {
        part: sum(parameter.numel() for parameter in siamese.get_submodule(part).parameters())
        for part in PARTS
    }
