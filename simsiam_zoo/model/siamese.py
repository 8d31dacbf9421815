"""SimSiam as five parts, in the paper's letters (Chen & He 2020, arXiv:2011.10566, algorithm 1).

    x1, x2   two views of the same images
    f        the encoder, backbone then projector: z = f(x)
    h        the predictor: p = h(z)
    D        the loss, which compares a prediction p with a target z

What is compared with what, and where gradient flows, is the fourth part, the gradient policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.errors import InputError, PluginError


@dataclass
class Batch:
    """Views of the same N images, and which images they are. No part sees a label.

    Args:
        views: one tensor [N, 3, H, W] for each view of an image; they may be of several sizes.
        ids: [N] int64, dense 0..n-1 over the training set; None in stream mode.
    """

    views: list[Tensor]
    ids: Tensor | None = None


@dataclass(frozen=True)
class StepOutput:
    """What a gradient policy gives for one batch of N images.

    Args:
        pairs: (prediction, target), each [N, dim]; the step's loss is the mean of D over them.
        embeddings: z of the views, in their order, [N, dim] each: what the step's statistics (std,
            alignment, uniformity) are of, and what `after_step` sees. Without them there are none.
    """

    pairs: Sequence[tuple[Tensor, Tensor]]
    embeddings: Sequence[Tensor] = ()

    @classmethod
    def joined(cls, outputs: Sequence[StepOutput]) -> StepOutput:
        """The output of a batch from those of its micro-batches, in their order."""
        if len(outputs) == 1:
            return outputs[0]
        pairs = zip(*(output.pairs for output in outputs), strict=True)
        embeddings = zip(*(output.embeddings for output in outputs), strict=True)
        return cls(
            [(torch.cat([p for p, _ in each]), torch.cat([z for _, z in each])) for each in pairs],
            [torch.cat(each) for each in embeddings],
        )

    def detached(self) -> StepOutput:
        """The same values without their graph."""
        pairs = [(p.detach(), z.detach()) for p, z in self.pairs]
        return StepOutput(pairs, [z.detach() for z in self.embeddings])


class Part(nn.Module):
    """Base of the five parts: hooks that do nothing, for a part to define where it needs them.

    A backbone, projector or predictor that needs no hook may be any `nn.Module`; one that is no
    `Part` and has a method of such a name is refused. Hooks are called outside of autocast,
    torch.compile and autograd.
    """

    compilable: bool = True
    """False: `training.compile` leaves this part as it is."""

    def setup(self, siamese: Siamese) -> None:
        """Called once, when all parts have the weights that the run starts from.

        That is before BN is synchronised, and before the optimiser and DDP take the parameters: a
        module that is made here is trained. For a part that comes in the middle of a run (a
        recipe's `change`) it is then, and the others have the weights of that moment.
        """

    def after_step(self, siamese: Siamese, output: StepOutput, step: int, steps: int) -> None:
        """Called after each step that the optimiser took (one that fp16 left out is none).

        `siamese` has the weights after it; `output` is detached, of all images of this process;
        `step` counts from 0 to the run's `steps`.
        """


class Loss(Part):
    """Base of the losses: (prediction, target), both [N, dim] float32, to a scalar.

    A loss may be any `nn.Module` too, if it has nothing to state.
    """

    minimum: float | None = None
    """The least value that it can take, which a verdict compares with; None: not known."""
    whole_batch: bool = False
    """True: an image's loss depends on the other images of the batch, as negatives or a covariance
    do. With micro-batches (`training.accumulate`) it is then another loss, and the run says so."""


class GradientPolicy(Part):
    """Base of the gradient policies: what is compared with what, and where gradient flows.

    State lives in its `state_dict` and is equal on all ranks; what it keeps for each sample may be
    shared out over ranks instead (`per_sample_state`).
    """

    views: int = 2
    """How many views of each image it compares; 0: as many as the augmentation gives."""
    blocks: int = 0
    """Steps in a block, for a policy that sees the batches of a block before its first step
    (`prepare_block`); 0: there are no blocks."""
    needs_ids: bool = False
    """True: refuse data that has no sample ids."""

    def prepare_block(self, siamese: Siamese, batches: Iterator[Batch]) -> None:
        """Called before each block of `blocks` steps, under the step's autocast, without gradient.

        `batches` are the very ones that `forward` will be given, in their order; of fewer steps at
        the end of the run. Where a step has micro-batches, each is a batch. A checkpoint within a
        block is that of its start, from where the block is prepared again: so nothing that is made
        here belongs into the `state_dict`.
        """

    def per_sample_state(self) -> dict[str, Tensor]:
        """What is kept for each sample: buffers in no `state_dict`, [samples / ranks, ...].

        Row i of rank r's is sample i x world size + r. The checkpoint holds all ranks' rows, and a
        run that goes on with another number of ranks gets them shared out anew, in place.
        """
        return {}

    def forward(self, siamese: Siamese, batch: Batch) -> StepOutput | list[tuple[Tensor, Tensor]]:
        """The pairs to compare and the views' embeddings; or a bare list of pairs."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward(siamese, batch)")


class Siamese(nn.Module):
    """Five parts, wired.

    Args:
        backbone: [N, 3, H, W] → features [N, in_dim].
        projector: [N, in_dim] → z [N, dim].
        predictor: z → p, both [N, dim].
        gradient: the policy, which gives the pairs (prediction, target).
        loss: (prediction, target) → scalar.
        in_dim, dim: width of the backbone's features; of z and p.
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

    def encode(self, x: Tensor) -> Tensor:
        """z = f(x). One view at a time, since BN's statistics are those of one view."""
        y = self.backbone(x)  # [N, 3, H, W] → [N, in_dim]
        z: Tensor = self.projector(y)  # [N, in_dim] → [N, dim]
        return z

    def predict(self, z: Tensor) -> Tensor:
        """p = h(z), [N, dim] → [N, dim]."""
        p: Tensor = self.predictor(z)
        if p.shape != z.shape:
            name = type(self.predictor).__name__
            raise PluginError(f"the predictor {name} gave {[*p.shape]} for {[*z.shape]}")
        return p

    def forward(self, batch: Batch) -> Tensor:
        """The step's loss, a scalar: see `step`."""
        return self.step(batch)[0]

    def step(self, batch: Batch) -> tuple[Tensor, StepOutput]:
        """The mean of D over the policy's pairs, a scalar, and the policy's output, detached.

        Raises:
            InputError: the batch has another number of views than the policy compares.
            PluginError: the policy gave something else.
        """
        if self.gradient.views not in (0, len(batch.views)):
            raise InputError(
                f"the batch has {len(batch.views)} views of each image,"
                f" and the gradient policy compares {self.gradient.views}"
            )
        output = self.gradient(self, batch)
        if isinstance(output, list):
            output = StepOutput(output)
        if not isinstance(output, StepOutput):
            raise PluginError(
                f"the gradient policy {type(self.gradient).__name__} gave a"
                f" {type(output).__name__}, not a StepOutput or a list of (prediction, target)"
            )
        losses = [self._compare(pair) for pair in output.pairs]
        if not losses:
            raise PluginError(f"the gradient policy {type(self.gradient).__name__} gave no pairs")
        return torch.stack(losses).mean(), output.detached()

    def after_step(self, output: StepOutput, step: int, steps: int) -> None:
        """Let the parts do what they do after a step of the optimiser (`Part.after_step`)."""
        with torch.no_grad():
            for part in self.parts_after_step():
                part.after_step(self, output, step, steps)

    def parts_after_step(self) -> list[Part]:
        """The parts that define `after_step`."""
        parts = (self.get_submodule(name) for name in PARTS)
        return [
            part
            for part in parts
            if isinstance(part, Part) and type(part).after_step is not Part.after_step
        ]

    def compilable_parts(self) -> list[nn.Module]:
        """Backbone, projector and predictor, but for those that are not to be compiled."""
        parts = (self.backbone, self.projector, self.predictor)
        return [part for part in parts if not isinstance(part, Part) or part.compilable]

    def _compare(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        policy = type(self.gradient).__name__
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise PluginError(f"the gradient policy {policy} gave no pairs (prediction, target)")
        p, z = map(_at_least_float32, pair)
        if p.shape != z.shape:
            shapes = f"a prediction {[*p.shape]} and a target {[*z.shape]}"
            raise PluginError(f"the gradient policy {policy} pairs {shapes}: both are [N, dim]")
        # half precision has too few digits for a cosine near -1
        with torch.autocast(p.device.type, enabled=False):
            loss: Tensor = self.loss(p, z)
        if loss.ndim:
            shape = [*loss.shape]
            raise PluginError(f"the loss {type(self.loss).__name__} gave {shape}, not a scalar")
        return loss


class TrainStep(nn.Module):
    """`Siamese.step` as a module's forward pass, which is what DDP wraps."""

    def __init__(self, siamese: Siamese) -> None:
        super().__init__()
        self.siamese = siamese

    def forward(self, batch: Batch) -> tuple[Tensor, StepOutput]:
        """The loss, a scalar, and the policy's output, detached."""
        return self.siamese.step(batch)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def parameter_counts(siamese: Siamese) -> dict[str, int]:
    """Numbers of parameters by part, trained or not, in the order of `PARTS`."""
    return {
        part: sum(parameter.numel() for parameter in siamese.get_submodule(part).parameters())
        for part in PARTS
    }
