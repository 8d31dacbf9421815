"""A small network in which a part takes the place of its kind, and a step of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.model.gradients import StopGradient
from simsiam_zoo.model.losses import CosineLoss
from simsiam_zoo.model.siamese import Batch, Part, Siamese
from simsiam_zoo.testing.checks import ComponentUnderTest, expect

SIDE = 32
"""Pixels of the images' sides: the least that most backbones take."""

IMAGES = 8
"""The `dataset_size` that the policy is given; each batch has the first of these images."""

STEPS = 4
IN_DIM, DIM = 12, 8


class ConformanceBench:
    """A network with the part in it, set up, in training mode; its weights depend on the seed.

    The other parts are as small and plain as they can be, of the width that the part has.
    """

    def __init__(self, tested: ComponentUnderTest, seed: int = 0) -> None:
        torch.manual_seed(seed)
        kind, create = tested.kind, tested.create
        backbone = create(image_size=SIDE) if kind == "backbone" else _small_backbone()
        in_dim = feature_width(backbone) if kind == "backbone" else IN_DIM
        projector = create(in_dim=in_dim) if kind == "projector" else nn.Linear(in_dim, DIM)
        dim: int = projector.out_dim if kind == "projector" else DIM  # type: ignore[assignment]
        predictor = create(dim=dim) if kind == "predictor" else nn.Linear(dim, dim)
        gradient = (
            create(dim=dim, dataset_size=IMAGES, steps_per_epoch=STEPS // 2, steps=STEPS)
            if kind == "gradient"
            else StopGradient(sides="both", pairs=1)
        )
        loss = create(dim=dim) if kind == "loss" else CosineLoss()
        self.siamese = Siamese(
            backbone, projector, predictor, gradient, loss, in_dim=in_dim, dim=dim
        ).train()
        for name in PARTS:
            module = self.siamese.get_submodule(name)
            if isinstance(module, Part):
                module.setup(self.siamese)
        self.part = self.siamese.get_submodule(kind)

    def batch(self, seed: int = 0, n: int = 3) -> Batch:
        """Views [n, 3, SIDE, SIDE], as many as the policy compares, like normalised images."""
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(n, 3, SIDE, SIDE, generator=generator)
        noise = torch.randn(self.siamese.gradient.views, n, 3, SIDE, SIDE, generator=generator)
        return Batch([images + 0.5 * each for each in noise], torch.arange(n))

    def step(self, batch: Batch, number: int = 0, autocast: bool = False) -> Tensor:
        """One step as the loop takes it, with a little SGD. Gradients are left where they are."""
        self.siamese.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            self.prepare_block(batch)
            loss, output = self.siamese.step(batch)
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

    def prepare_block(self, batch: Batch) -> None:
        """Show a policy that has blocks the batch that follows."""
        if self.siamese.gradient.blocks:
            with torch.no_grad():
                self.siamese.gradient.prepare_block(self.siamese, iter([batch]))

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


def _small_backbone() -> nn.Module:
    """[N, 3, H, W] → [N, IN_DIM]."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, IN_DIM),
    )


def feature_width(backbone: nn.Module, size: int = SIDE) -> int:
    """The width of a backbone's features; its mode and the random generator stay as they are."""
    training = backbone.training
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        y = backbone.eval()(torch.rand(2, 3, size, size))
    backbone.train(training)
    expect(isinstance(y, Tensor) and y.ndim == 2, "gives no features [N, D]")
    return int(y.shape[1])


def shape(x: object) -> str:
    """A tensor's shape as people write it."""
    return str(list(x.shape)) if isinstance(x, Tensor) else f"a {type(x).__name__}"


def expect_equal(one: dict[str, Tensor], other: dict[str, Tensor], what: str) -> None:
    """Raise Broken unless two states are equal to the bit; `what` begins the text."""
    expect(one.keys() == other.keys(), f"{what} {sorted(one.keys() ^ other.keys())}")
    differ = [name for name in one if not torch.equal(one[name], other[name])]
    expect(not differ, f"{what} {', '.join(differ[:3])}")
