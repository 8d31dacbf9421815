"""Gradient policies: which p meets which z, and whether gradient flows into z."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

from simsiam_zoo.errors import InputError
from simsiam_zoo.model.siamese import Batch, GradientPolicy, Siamese, StepOutput
from simsiam_zoo.runtime.distributed import gather, rank, total, world_size


class _PairedViews(GradientPolicy):
    """Views two by two, each pair's p against the other's z.

    Args:
        sides: "both": D(p1, z2) and D(p2, z1); "one": D(p1, z2) alone (arXiv:2011.10566 sec. 4.6).
        pairs: pairs of fresh views per image; 2 makes up for one side in the number of
            comparisons (section 4.6).
    """

    def __init__(self, *, sides: str, pairs: int) -> None:
        super().__init__()
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


_ON_DEVICE = 1 << 30
"""Bytes of a block's targets that stay on the device; the others wait in the host's memory."""


class Alternation(GradientPolicy):
    """SimSiam as an alternating optimisation with k steps in each block.

    Before a block, z of every view of its k batches is computed with the weights of that moment;
    each step then compares p of the weights it has come to with these (arXiv:2011.10566 section
    5.2). The target passes normalise by each batch's own statistics, as the steps do, and leave
    running statistics and random generators as they were, so that k = 1 is SimSiam to the bit.

    A block's targets take k x 2 N dim numbers, of the precision that z has, on each rank. They are
    in no `state_dict`: a run goes on from the start of a block, where they are computed anew.

    Args:
        k: steps in a block; "epoch": the steps of an epoch.
        steps_per_epoch: None where unknown; then k = "epoch" can be built, but not trained.
    """

    def __init__(self, *, k: int | str, steps_per_epoch: int | None = None) -> None:
        super().__init__()
        self.blocks = (steps_per_epoch or 0) if k == "epoch" else int(k)
        self._targets: deque[list[Tensor]] = deque()
        self._bytes_on_device = 0

    def prepare_block(self, siamese: Siamese, batches: Iterator[Batch]) -> None:
        """Compute the targets of the batches that follow, one batch at a time."""
        self._targets.clear()
        self._bytes_on_device = 0
        with _undisturbed(siamese):
            for batch in batches:
                z = [siamese.encode(x).detach() for x in batch.views]  # [N, dim] each
                self._targets.append([self._stored(each) for each in z])

    def forward(self, siamese: Siamese, batch: Batch) -> StepOutput:
        """(p1, z2) and (p2, z1), all [N, dim], with z of the block's start."""
        if not self._targets:
            raise InputError(
                "gradient alternation has no targets for this batch",
                "Call gradient.prepare_block(siamese, batches) before each block of k steps, with"
                " the block's batches in their order.",
            )
        x1, x2 = batch.views  # [N, 3, H, W] each
        z1, z2 = siamese.encode(x1), siamese.encode(x2)  # [N, dim] each
        p1, p2 = siamese.predict(z1), siamese.predict(z2)  # [N, dim] each
        then1, then2 = (z.to(p1.device, non_blocking=True) for z in self._targets.popleft())
        return StepOutput([(p1, then2), (p2, then1)], (z1, z2))

    def _stored(self, z: Tensor) -> Tensor:
        if self._bytes_on_device + z.nbytes > _ON_DEVICE:
            return z.cpu()
        self._bytes_on_device += z.nbytes
        return z


@contextmanager
def _undisturbed(siamese: Siamese) -> Iterator[None]:
    """Whatever passes the encoder inside, its buffers and the generators end as they began."""
    device = next(siamese.parameters()).device
    generators = [device] if device.type == "cuda" else []
    before = [
        (module, name, buffer, buffer.clone())
        for part in (siamese.backbone, siamese.projector)
        for module in part.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        with torch.random.fork_rng(devices=generators):
            yield
    finally:
        for module, name, buffer, value in before:
            buffer.copy_(value)
            setattr(module, name, buffer)  # a module may have put another tensor in its place


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
        self, *, dim: int, dataset_size: int | None = None, momentum: float, normalize: bool
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
        """(p1, η) and (p2, η), all [N, dim]; η is updated first. InputError without ids."""
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
        seen = [z.to(self.average.dtype) for z in views]
        seen = [functional.normalize(z, dim=1) for z in seen] if self.normalize else seen
        z = torch.stack(seen).mean(dim=0)  # [N, dim]
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
