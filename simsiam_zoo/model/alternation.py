"""k-step alternation: targets for k steps at once, then k steps of SGD towards them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from simsiam_zoo.errors import InputError
from simsiam_zoo.model.siamese import Batch, GradientPolicy, Siamese, StepOutput

_ON_DEVICE = 1 << 30
"""Bytes of targets that stay on the device; those of longer blocks wait in the host's memory."""


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

    def __init__(self, *, k: int | str = 10, steps_per_epoch: int | None = None) -> None:
        super().__init__()
        self.blocks = (steps_per_epoch or 0) if k == "epoch" else int(k)
        self._targets: deque[list[Tensor]] = deque()

    def prepare_block(self, siamese: Siamese, batches: Iterator[Batch]) -> None:
        """Compute the targets of the batches that follow, one batch at a time."""
        self._targets.clear()
        with _undisturbed(siamese):
            for batch in batches:
                z = [siamese.encode(x).detach() for x in batch.views]  # [N, dim] each
                self._targets.append([self._kept(each) for each in z])

    def forward(self, siamese: Siamese, batch: Batch) -> StepOutput:
        """(p1, z2) and (p2, z1), all [N, dim], with z of the block's start.

        Raises:
            InputError: `prepare_block` was not shown this batch.
        """
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

    def _kept(self, z: Tensor) -> Tensor:
        block = self.blocks * self.views * z.nbytes
        return z if block <= _ON_DEVICE else z.cpu()


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
