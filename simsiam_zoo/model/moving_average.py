"""A moving average of each image's representation as the target of its predictions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from simsiam_zoo.errors import InputError
from simsiam_zoo.model.siamese import Batch, GradientPolicy, Siamese, StepOutput
from simsiam_zoo.runtime.distributed import gather, rank, total, world_size


class MovingAverage(GradientPolicy):
    """Targets η, one for each image, averaged over its views of all epochs.

    η ← m η + (1 - m) z, and both views' p are compared with η (arXiv:2011.10566 section 5.2, where
    it stands in for the expectation over views, and with that for the predictor). What the paper
    leaves open is settled so: z is the mean over the step's views; η takes it in before it is the
    target, as SimSiam's targets are of the step's own weights; an image's first z starts its η;
    what is averaged has unit length, since the section's problem is the squared distance of
    l2-normalised vectors, and η itself is not normalised again.

    η is kept in the precision of the parameters, 4 bytes x images x dim in fp32, shared out over
    the ranks by id.

    Args:
        dim: width of z.
        dataset_size: images of the training set; None where unknown, then nothing can be trained.
        momentum: m, what is kept of η each time an image is seen.
        normalize: average z / |z|; False: z as it is.
    """

    needs_ids = True
    average: Tensor
    times: Tensor

    def __init__(
        self,
        *,
        dim: int,
        dataset_size: int | None = None,
        momentum: float = 0.8,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.normalize = normalize
        rows = len(range(rank(), dataset_size or 0, world_size()))
        self.register_buffer("average", torch.zeros(rows, dim), persistent=False)
        self.register_buffer("times", torch.zeros(rows, dtype=torch.int32), persistent=False)

    def per_sample_state(self) -> dict[str, Tensor]:
        """η of this rank's images, [rows, dim], and how often each was seen, [rows] int32."""
        return {"average": self.average, "times": self.times}

    def forward(self, siamese: Siamese, batch: Batch) -> StepOutput:
        """(p1, η) and (p2, η), all [N, dim]; η is updated first.

        Raises:
            InputError: the batch has no ids, or the data set's size was not known.
        """
        if batch.ids is None or not len(self.average):
            raise InputError(
                "gradient moving-average keeps a target for each image: it needs the images' ids"
                " and dataset_size"
            )
        z = [siamese.encode(x) for x in batch.views]  # [N, dim] each
        eta = self._update(batch.ids, z)  # [N, dim]
        return StepOutput([(siamese.predict(each), eta) for each in z], z)

    @torch.no_grad()
    def _update(self, ids: Tensor, views: list[Tensor]) -> Tensor:
        """Take a step's z into the averages of its images; their η, [N, dim].

        Nothing in here waits for the device: what belongs to other ranks is masked, not left out.
        """
        n = len(ids)
        z = torch.stack([self._averaged(each) for each in views]).mean(dim=0)  # [N, dim]
        ids, z = gather(ids), gather(z)  # of the global batch: [G], [G, dim]
        # An image that replaces damaged ones is there more than once: its z is their mean.
        copies = (ids[:, None] == ids[None, :]).sum(dim=1)
        mine = ids % world_size() == rank()
        row = torch.where(mine, ids // world_size(), 0)
        kept = self.momentum * (self.times[row] > 0).to(z.dtype)
        share = (1 - kept) / copies * mine  # [G]
        change = share[:, None] * (z - self.average[row])
        self.average.index_add_(0, row, change)
        self.times.index_add_(0, row, mine.to(self.times.dtype))
        eta = total(self.average[row] * mine[:, None])  # each row is its owner's, plus zeros
        return eta[rank() * n : (rank() + 1) * n]

    def _averaged(self, z: Tensor) -> Tensor:
        z = z.to(self.average.dtype)
        return functional.normalize(z, dim=1) if self.normalize else z
