"""The bench that a part is put on: a small network in which it takes the place of its kind."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.model.gradients import StopGradient
from simsiam_zoo.model.losses import CosineLoss
from simsiam_zoo.model.siamese import Batch, Part, Siamese
from simsiam_zoo.testing.checks import expect
from simsiam_zoo.testing.plugins import Subject

SIDE = 32
"""Pixels of the images' sides: the least that most backbones take."""

IMAGES = 8
"""Images of the data set that the policy is told of; each batch is of its first ones."""

STEPS = 4
IN_DIM, DIM = 12, 8


class _Backbone(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 5, stride=4, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, IN_DIM),
        )


def make(subject: Subject, seed: int = 0) -> Siamese:
    """A network with the part in it, set up, in training mode; its weights depend on the seed.

    The others are as small and plain as they can be. A backbone or a projector has the width that
    it likes, and the parts behind it follow.
    """
    torch.manual_seed(seed)
    kind = subject.kind
    backbone = subject.create(image_size=SIDE) if kind == "backbone" else _Backbone()
    in_dim = features(backbone) if kind == "backbone" else IN_DIM
    projector = subject.create(in_dim=in_dim) if kind == "projector" else nn.Linear(in_dim, DIM)
    dim: int = projector.out_dim if kind == "projector" else DIM  # type: ignore[assignment]
    predictor = subject.create(dim=dim) if kind == "predictor" else nn.Linear(dim, dim)
    gradient = (
        subject.create(dim=dim, dataset_size=IMAGES, steps_per_epoch=STEPS // 2, steps=STEPS)
        if kind == "gradient"
        else StopGradient()
    )
    loss = subject.create(dim=dim) if kind == "loss" else CosineLoss()
    siamese = Siamese(
        backbone, projector, predictor, gradient, loss, in_dim=in_dim, dim=dim
    ).train()
    for part in PARTS:
        module = siamese.get_submodule(part)
        if isinstance(module, Part):
            module.setup(siamese)
    return siamese


def features(backbone: nn.Module, size: int = SIDE) -> int:
    """The width of a backbone's features."""
    training = backbone.training
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        y = backbone.eval()(torch.rand(2, 3, size, size))
    backbone.train(training)
    expect(isinstance(y, Tensor) and y.ndim == 2, "gives no features [N, D]")
    return int(y.shape[1])


def own(siamese: Siamese, subject: Subject) -> nn.Module:
    """The part in its network."""
    return siamese.get_submodule(subject.kind)


def batch(siamese: Siamese, seed: int = 0, n: int = 3) -> Batch:
    """Views [n, 3, SIDE, SIDE], as many as the policy compares, like normalised images."""
    generator = torch.Generator().manual_seed(seed)
    count = siamese.gradient.views
    images = torch.randn(n, 3, SIDE, SIDE, generator=generator)
    noise = torch.randn(count, n, 3, SIDE, SIDE, generator=generator)
    return Batch([images + 0.5 * each for each in noise], torch.arange(n))


def step(siamese: Siamese, given: Batch, number: int = 0, autocast: bool = False) -> Tensor:
    """One step as the loop takes it: prepare_block, loss, backward, a little SGD, after_step.

    Gradients are left where they are.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        prepared(siamese, given)
        loss, output = siamese.step(given)
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in siamese.parameters():
            if parameter.requires_grad and parameter.grad is not None:
                parameter.sub_(0.01 * parameter.grad)
    siamese.after_step(output, number, STEPS)
    return loss.detach()


def prepared(siamese: Siamese, given: Batch) -> None:
    """Show a policy that has blocks the batch that follows."""
    if siamese.gradient.blocks:
        with torch.no_grad():
            siamese.gradient.prepare_block(siamese, iter([given]))


def state(siamese: Siamese) -> dict[str, Tensor]:
    """All that a checkpoint keeps: the state dict, and what is kept for each sample."""
    kept = {f"per sample: {k}": v for k, v in siamese.gradient.per_sample_state().items()}
    return {**siamese.state_dict(), **kept}


def shape(x: object) -> str:
    """A tensor's shape as people write it."""
    return str(list(x.shape)) if isinstance(x, Tensor) else f"a {type(x).__name__}"


def same(one: dict[str, Tensor], other: dict[str, Tensor], what: str) -> None:
    """Raise Broken unless two states are equal to the bit; `what` begins the text."""
    expect(one.keys() == other.keys(), f"{what} {sorted(one.keys() ^ other.keys())}")
    differ = [name for name in one if not torch.equal(one[name], other[name])]
    expect(not differ, f"{what} {', '.join(differ[:3])}")
