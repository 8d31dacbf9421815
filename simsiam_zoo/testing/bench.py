"""A small network in which a part takes the place of its kind, and a step of it."""

from __future__ import annotations

import torch
from torch import Tensor

from simsiam_zoo.catalog import catalog
from simsiam_zoo.model.build import build
from simsiam_zoo.model.siamese import Batch, StepOutput
from simsiam_zoo.testing.checks import ComponentUnderTest, expect

SMALL = {
    "backbone": "test_resnet",
    "projector": "mlp:layers=2,hidden_dim=32,out_dim=32",
    "predictor": "mlp:hidden_dim=8",
    "gradient": "stop-gradient",
    "loss": "cosine",
}
"""The parts around the one that is tested."""

STEPS = 4


class ConformanceBench:
    """A network with the part in it, in training mode, for images of `size` pixels.

    Its weights depend on the seed.
    """

    def __init__(self, tested: ComponentUnderTest, seed: int = 0, size: int = 32) -> None:
        torch.manual_seed(seed)
        parts = {kind: catalog().resolve(kind, spec) for kind, spec in SMALL.items()}
        parts[tested.kind] = tested.resolved
        self.siamese = build(parts, size, 8, STEPS // 2, STEPS)
        self.part = self.siamese.get_submodule(tested.kind)
        self._size = size

    def batch(self, seed: int = 0, n: int = 3) -> Batch:
        """Views [n, 3, size, size], as many as the policy compares, like normalised images."""
        generator = torch.Generator().manual_seed(seed)
        shape = (n, 3, self._size, self._size)
        images = torch.randn(shape, generator=generator)
        noise = torch.randn(self.siamese.gradient.views, *shape, generator=generator)
        return Batch([images + 0.5 * each for each in noise], torch.arange(n))

    def step(self, batch: Batch, number: int = 0, autocast: bool = False) -> Tensor:
        """One step as the loop takes it, with a little SGD. Gradients are left where they are."""
        self.siamese.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss, output = self.compare(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in self.siamese.parameters():
                if parameter.requires_grad and parameter.grad is not None:
                    parameter.sub_(0.01 * parameter.grad)
        self.siamese.after_step(output, number, STEPS)
        return loss.detach()

    def seeded_step(self, number: int) -> Tensor:
        """The step of that number: its batch and its random draws depend on nothing else."""
        torch.manual_seed(number)
        return self.step(self.batch(number), number)

    def compare(self, batch: Batch) -> tuple[Tensor, StepOutput]:
        """The loss of a batch, which a policy that has blocks is shown first."""
        if self.siamese.gradient.blocks:
            with torch.no_grad():
                self.siamese.gradient.prepare_block(self.siamese, iter([batch]))
        return self.siamese.step(batch)

    def state(self) -> dict[str, Tensor]:
        """All that a checkpoint keeps: the state dict, and what is kept for each sample."""
        rows = self.siamese.gradient.per_sample_state()
        return {**self.siamese.state_dict(), **{f"per sample: {k}": v for k, v in rows.items()}}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave of another bench."""
        state = dict(state)
        for name, rows in self.siamese.gradient.per_sample_state().items():
            rows.copy_(state.pop(f"per sample: {name}"))
        self.siamese.load_state_dict(state)


def expect_equal(one: dict[str, Tensor], other: dict[str, Tensor], what: str) -> None:
    """Raise Broken unless two states are equal to the bit; `what` begins the text."""
    expect(one.keys() == other.keys(), f"{what} {sorted(one.keys() ^ other.keys())}")
    differ = [name for name in one if not torch.equal(one[name], other[name])]
    expect(not differ, f"{what} {', '.join(differ[:3])}")
