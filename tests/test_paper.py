"""The `imagenet` preset against the paper's pseudocode (arXiv:2011.10566, algorithm 1).

What stands here is written from the paper with torchvision's ResNet-50, and shares no code with
the package.
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.model.build import build
from simsiam_zoo.model.siamese import Batch, Siamese, parameter_counts
from simsiam_zoo.recipe import Recipe


def paper_model() -> nn.ModuleDict:
    """Sections 3 and 4: backbone, a projection MLP of 3 layers, a prediction MLP of 2."""
    backbone = torchvision.models.resnet50(zero_init_residual=True)
    backbone.fc = nn.Identity()
    projector = nn.Sequential(
        nn.Linear(2048, 2048, bias=False), nn.BatchNorm1d(2048), nn.ReLU(),
        nn.Linear(2048, 2048, bias=False), nn.BatchNorm1d(2048), nn.ReLU(),
        nn.Linear(2048, 2048, bias=False), nn.BatchNorm1d(2048, affine=False),
    )  # fmt: skip
    predictor = nn.Sequential(
        nn.Linear(2048, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU(),
        nn.Linear(512, 2048),
    )  # fmt: skip
    return nn.ModuleDict({"backbone": backbone, "projector": projector, "predictor": predictor})


def paper_loss(model: nn.ModuleDict, x1: Tensor, x2: Tensor) -> Tensor:
    """Algorithm 1, line by line."""

    def d(p: Tensor, z: Tensor) -> Tensor:
        z = z.detach()  # stop gradient
        p = p / p.norm(dim=1, keepdim=True)  # l2-normalize
        z = z / z.norm(dim=1, keepdim=True)  # l2-normalize
        return -(p * z).sum(dim=1).mean()

    def f(x: Tensor) -> Tensor:
        return model["projector"](model["backbone"](x))

    h = model["predictor"]
    z1, z2 = f(x1), f(x2)  # projections, n-by-d
    p1, p2 = h(z1), h(z2)  # predictions, n-by-d
    return d(p1, z2) / 2 + d(p2, z1) / 2


def our_model() -> Siamese:
    recipe = Recipe.make("imagenet")
    return build({kind: recipe.part(kind) for kind in PARTS}, image_size=32)


def norms(model: nn.Module) -> dict[str, nn.Module]:
    kinds = nn.BatchNorm1d | nn.BatchNorm2d
    found = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    return {name: module for name, module in found.items() if module.affine}


def scatter_norms(model: nn.Module) -> None:
    """Scales and shifts at random: scales of zero would leave most gradients at zero."""
    for module in norms(model).values():
        nn.init.uniform_(module.weight, 0.5, 1.5)
        nn.init.uniform_(module.bias, -0.5, 0.5)


def test_loss_and_every_gradient_are_those_of_the_papers_pseudocode() -> None:
    torch.manual_seed(0)
    ours, theirs = our_model().double(), paper_model().double()
    for giver, taker in ((ours, theirs), (theirs, ours)):
        scatter_norms(giver)
        taker.load_state_dict(giver.state_dict())  # strict: neither lacks a tensor of the other's
        x1, x2 = (torch.randn(4, 3, 32, 32, dtype=torch.float64) for _ in range(2))
        ours.zero_grad()
        theirs.zero_grad()

        loss, expected = ours(Batch([x1, x2])), paper_loss(theirs, x1, x2)
        loss.backward()
        expected.backward()

        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
        gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
        assert gradients.keys() == dict(theirs.named_parameters()).keys()
        for name, parameter in theirs.named_parameters():
            size = parameter.grad.norm()
            assert size > 1e-6, f"{name} has no gradient to speak of"
            error = (gradients[name] - parameter.grad).norm() / size
            assert error < 1e-6, f"{name}: {error}"
        for name, value in theirs.state_dict().items():  # each view moved the running statistics
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-6, atol=1e-12)


def test_parameters_and_initialisation_are_the_papers() -> None:
    ours, theirs = our_model(), paper_model()
    counts = parameter_counts(ours)
    for part, module in theirs.items():
        assert counts[part] == sum(parameter.numel() for parameter in module.parameters())
    assert sum(counts.values()) == 38_199_360  # by hand: 23,508,032 + 12,591,104 + 2,100,224

    def zeroed(model: nn.Module) -> set[str]:
        return {name for name, module in norms(model).items() if not module.weight.any()}

    assert len(zeroed(theirs)) == 3 + 4 + 6 + 3  # the last of each residual block
    assert zeroed(ours) == zeroed(theirs)
