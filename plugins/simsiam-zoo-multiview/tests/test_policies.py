"""The policies against their formulas, in plain torch and float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from simsiam_zoo.plugin import Batch, GradientPolicy, InputError, Part, Siamese, create_component

N, DIM = 6, 5
LARGE, SMALL = 8, 4


class Cosine(nn.Module):
    def forward(self, p: Tensor, z: Tensor) -> Tensor:
        return -(normalize(p, dim=1) * normalize(z, dim=1)).sum(dim=1).mean()


def network(policy: GradientPolicy) -> Siamese:
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.AdaptiveAvgPool2d(1)
    )
    backbone = nn.Sequential(backbone, nn.Flatten())
    predictor = nn.Sequential(nn.Linear(DIM, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, DIM))
    siamese = Siamese(
        backbone, nn.Linear(4, DIM), predictor, policy, Cosine(), in_dim=4, dim=DIM
    ).double()
    policy.setup(siamese)
    return siamese.train()


def batch(*sizes: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch([torch.randn(N, 3, s, s, dtype=torch.float64, generator=generator) for s in sizes])


def d(p: Tensor, z: Tensor) -> Tensor:
    """D of the paper, row by row, z a constant."""
    rows = [-(a @ b) / (a.norm() * b.norm()) for a, b in zip(p, z.detach(), strict=True)]
    return torch.stack(rows).mean()


def same_loss_and_gradients(siamese: Siamese, views: Batch, expected: Tensor) -> None:
    weights = [p for p in siamese.parameters() if p.requires_grad]
    loss = siamese(views)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    theirs = torch.autograd.grad(expected, weights, allow_unused=True)
    torch.testing.assert_close(found, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sizes", [(8, 8, 4, 4, 4), (8, 8), (8, 4), (4, 8, 5, 8, 8)])
@pytest.mark.parametrize("predictors", ["one", "by-size"])
def test_multi_crop_is_the_mean_over_views_and_large_targets(
    sizes: tuple[int, ...], predictors: str
) -> None:
    siamese = network(create_component("gradient", f"multi-crop:predictors={predictors}"))
    own = siamese.predictor
    if predictors == "by-size":
        own = siamese.gradient.small_predictor
        with torch.no_grad():  # else the two are still alike
            own[0].weight.mul_(2)
    views = batch(*sizes)
    terms = []
    for i, x in enumerate(views.views):
        predictor = siamese.predictor if sizes[i] == max(sizes) else own
        p = predictor(siamese.projector(siamese.backbone(x)))
        for j, target in enumerate(views.views):
            if sizes[j] == max(sizes) and i != j:
                terms.append(d(p, siamese.projector(siamese.backbone(target))))
    large = sizes.count(max(sizes))
    assert len(terms) == large * (len(sizes) - 1)
    same_loss_and_gradients(siamese, views, sum(terms) / len(terms))


@pytest.mark.parametrize("views", [2, 3, 4])
@pytest.mark.parametrize("normalized", [False, True])
def test_fastsiam_predicts_the_mean_of_the_others(views: int, normalized: bool) -> None:
    policy = create_component("gradient", "fastsiam", views=views, normalize=normalized)
    siamese, given = network(policy), batch(*[8] * views)
    z = [siamese.projector(siamese.backbone(x)) for x in given.views]
    expected = torch.zeros((), dtype=torch.float64)
    for i in range(views):
        target = torch.zeros(N, DIM, dtype=torch.float64)
        for j in set(range(views)) - {i}:
            row = z[j].detach()
            target += row / row.norm(dim=1, keepdim=True) if normalized else row
        expected = expected + d(siamese.predictor(z[i]), target / (views - 1)) / views
    same_loss_and_gradients(siamese, given, expected)


@pytest.mark.parametrize("spec", ["multi-crop", "fastsiam:views=2"])
def test_with_two_large_views_they_are_simsiam_to_the_bit(spec: str) -> None:
    ours, theirs = (network(create_component("gradient", s)) for s in (spec, "stop-gradient"))
    losses = [
        siamese.float()(Batch([x.float() for x in batch(8, 8).views])) for siamese in (ours, theirs)
    ]
    assert torch.equal(*losses)
    for siamese, loss in zip((ours, theirs), losses, strict=True):
        siamese.zero_grad()
        loss.backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_small_views_are_no_targets() -> None:
    """What is compared with a small view's z would move with it."""
    siamese = network(create_component("gradient", "multi-crop"))
    first, other = batch(8, 8, 4), batch(8, 8, 4)
    other.views[2] = other.views[2].flip(0)
    outputs = [siamese.step(each)[1] for each in (first, other)]
    for (_, ours), (_, theirs) in zip(*(each.pairs for each in outputs), strict=True):
        assert torch.equal(ours, theirs)
    z = [siamese.encode(x) for x in first.views[:2]]
    assert all(map(torch.equal, outputs[0].embeddings, z))
    assert len(outputs[0].embeddings) == 2


def test_the_predictor_of_small_views_starts_as_a_copy_and_is_trained_apart() -> None:
    siamese = network(create_component("gradient", "multi-crop:predictors=by-size"))
    small = siamese.gradient.small_predictor
    assert all(
        map(torch.equal, small.state_dict().values(), siamese.predictor.state_dict().values())
    )
    siamese(batch(8, 4)).backward()  # of one large view p meets nothing
    assert all(p.grad is None for p in siamese.predictor.parameters())
    assert all(p.grad is not None for p in small.parameters())
    again = copy.deepcopy(siamese)
    assert again.gradient.small_predictor is not small


def test_a_predictor_that_is_set_after_steps_is_not_copied() -> None:
    class Set(Part):
        def after_step(self, *_: object) -> None:
            pass

    siamese = network(create_component("gradient", "multi-crop"))
    siamese.predictor = Set()
    with pytest.raises(InputError, match="a copy is not"):
        create_component("gradient", "multi-crop:predictors=by-size").setup(siamese)


def test_one_view_alone_is_refused() -> None:
    with pytest.raises(InputError, match="the augmentation gives one"):
        network(create_component("gradient", "multi-crop"))(batch(8))
