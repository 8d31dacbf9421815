"""Losses against torch's own and geometry; gradient policies by what gradient reaches."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from simsiam_zoo.catalog import create_component
from simsiam_zoo.model.gradients import NoStopGradient, StopGradient
from simsiam_zoo.model.losses import CosineLoss, CrossEntropyLoss, MseLoss
from simsiam_zoo.model.siamese import Batch, Siamese


def pair(n: int = 6, dim: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    p, z = (torch.randn(n, dim, dtype=torch.float64, generator=generator) for _ in range(2))
    return p, z


def test_cosine_is_minus_one_for_parallel_and_zero_for_orthogonal() -> None:
    p, z = pair()
    scales = torch.rand(len(p), 1, dtype=torch.float64) + 0.1
    loss = CosineLoss()
    torch.testing.assert_close(loss(p, scales * p).item(), -1.0)
    torch.testing.assert_close(loss(p, -scales * p).item(), 1.0)
    orthogonal = z - (z * p).sum(1, keepdim=True) / p.square().sum(1, keepdim=True) * p
    torch.testing.assert_close(loss(p, orthogonal).item(), 0.0)


def test_normalised_mse_is_two_plus_twice_the_cosine_loss() -> None:
    p, z = pair()
    torch.testing.assert_close(create_component("loss", "mse")(p, z), 2 + 2 * CosineLoss()(p, z))
    nearly = p.float() * (1 + 1e-7)
    assert create_component("loss", "mse")(p.float(), nearly) >= MseLoss.minimum


def test_twice_the_mean_of_two_directions_is_their_sum() -> None:
    p, z = torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean = torch.stack(
        [
            create_component("loss", "mse", scale=2.0)(p, z),
            create_component("loss", "mse", scale=2.0)(z.flip(0), p),
        ]
    ).mean()
    expected = create_component("loss", "mse")(p, z) + create_component("loss", "mse")(z.flip(0), p)
    torch.testing.assert_close(mean, expected, rtol=1e-12, atol=0)


def test_plain_mse_and_cross_entropy_are_torchs() -> None:
    p, z = pair()
    expected = functional.mse_loss(p, z)
    torch.testing.assert_close(create_component("loss", "mse", normalize=False)(p, z), expected)
    expected = functional.cross_entropy(p, z.softmax(dim=1))
    torch.testing.assert_close(CrossEntropyLoss()(p, z), expected)


def test_cross_entropys_minimum_is_approached_by_equal_one_hot_distributions() -> None:
    sharp = 1000 * torch.eye(4)
    assert CrossEntropyLoss()(sharp, sharp) == CrossEntropyLoss.minimum
    assert CrossEntropyLoss()(sharp, sharp.flip(0)).isfinite()


@pytest.mark.parametrize(
    "loss",
    [
        CosineLoss(),
        CrossEntropyLoss(),
        MseLoss(normalize=True, scale=1.0),
        MseLoss(normalize=False, scale=1.0),
    ],
)
def test_zero_vectors_have_a_finite_loss_and_gradient(loss: nn.Module) -> None:
    p, z = torch.zeros(3, 4, requires_grad=True), torch.zeros(3, 4, requires_grad=True)
    value = loss(p, z)
    value.backward()
    assert value.isfinite()
    assert p.grad.isfinite().all()
    assert z.grad.isfinite().all()


def linear_siamese(policy: nn.Module) -> Siamese:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    return Siamese(
        backbone, nn.Linear(4, 5), nn.Linear(5, 5), policy, CosineLoss(), in_dim=4, dim=5
    ).double()


def images(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(6, 3, 2, 2, dtype=torch.float64, generator=generator).requires_grad_()
        for _ in range(count)
    ]


@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize("sides", ["both", "one"])
@pytest.mark.parametrize("policy", [StopGradient, NoStopGradient])
def test_what_is_compared_and_where_gradient_flows(
    policy: type[StopGradient], sides: str, pairs: int
) -> None:
    siamese = linear_siamese(policy(sides=sides, pairs=pairs))
    assert siamese.gradient.views == 2 * pairs
    x = images(2 * pairs)
    z = [siamese.projector(siamese.backbone(view)) for view in x]
    p = [siamese.predictor(each) for each in z]
    who = [(0, 1), (1, 0), (2, 3), (3, 2)][: 2 * pairs]
    who = who if sides == "both" else who[::2]

    found = siamese.gradient(siamese, Batch(x)).pairs
    assert len(found) == len(who)
    for (prediction, target), (i, j) in zip(found, who, strict=True):
        assert torch.equal(prediction, p[i])
        assert torch.equal(target, z[j])
        # each comparison on its own: the other view is reached through its z or not at all
        through = torch.autograd.grad(
            siamese.loss(prediction, target), [x[i], x[j]], retain_graph=True, allow_unused=True
        )
        assert through[0].abs().sum() > 0
        assert (through[1] is None) == (policy is StopGradient)

    expected = sum(-functional.cosine_similarity(p[i], z[j]).mean() for i, j in who) / len(who)
    torch.testing.assert_close(siamese(Batch(x)), expected)
