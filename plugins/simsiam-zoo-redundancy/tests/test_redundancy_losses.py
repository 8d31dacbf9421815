"""Both losses against the papers' formulas, in loops over plain numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from simsiam_zoo.model.heads import NoPredictor
from simsiam_zoo.plugin import Batch, Siamese, create_component
from simsiam_zoo_redundancy.barlow_twins import BarlowTwinsLoss
from simsiam_zoo_redundancy.vicreg import VicRegLoss

N, DIM = 7, 4
LOSSES = [
    BarlowTwinsLoss(lambd=0.0051, scale=1.0),
    BarlowTwinsLoss(lambd=0.3, scale=0.01),
    VicRegLoss(invariance=25.0, variance=25.0, covariance=1.0, gamma=1.0),
]


def views(seed: int = 0, n: int = N, dim: int = DIM) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, n, dim, dtype=torch.float64, generator=generator)
    return a + 0.3, 0.6 * a + 0.5 * b  # correlated, not centred


def barlow(a: Tensor, b: Tensor, lambd: float, eps: float = 1e-5) -> float:
    """eq. 1 and 2 of arXiv:2103.03230."""
    n, dim = a.shape
    mean_a, mean_b = ([sum(x[:, i].tolist()) / n for i in range(dim)] for x in (a, b))
    var_a, var_b = (
        [sum((v - m) ** 2 for v in x[:, i].tolist()) / n + eps for i, m in enumerate(mean)]
        for x, mean in ((a, mean_a), (b, mean_b))
    )
    loss = 0.0
    for i in range(dim):
        for j in range(dim):
            covariance = sum(
                (a[s, i].item() - mean_a[i]) * (b[s, j].item() - mean_b[j]) for s in range(n)
            )
            c = covariance / n / math.sqrt(var_a[i] * var_b[j])
            loss += (1 - c) ** 2 if i == j else lambd * c**2
    return loss


def vicreg(a: Tensor, b: Tensor, weights: tuple[float, float, float], gamma: float) -> float:
    """eq. 1 to 6 of arXiv:2105.04906, with the mean over channels in s."""
    n, dim = a.shape
    s = sum((x - y) ** 2 for x, y in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True))
    v = c = 0.0
    for z in (a, b):
        rows = z.tolist()
        mean = [sum(row[i] for row in rows) / n for i in range(dim)]
        for i in range(dim):
            for j in range(dim):
                cov = sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in rows) / (n - 1)
                if i == j:
                    v += max(0.0, gamma - math.sqrt(cov + 1e-4)) / dim
                else:
                    c += cov**2 / dim
    return weights[0] * s / (n * dim) + weights[1] * v + weights[2] * c


@pytest.mark.parametrize(("lambd", "scale"), [(0.0051, 1.0), (0.3, 0.01)])
def test_barlow_twins_is_its_formula(lambd: float, scale: float) -> None:
    found = BarlowTwinsLoss(lambd=lambd, scale=scale)(*views()).item()
    assert found == pytest.approx(scale * barlow(*views(), lambd), rel=1e-12)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 0.5, 2.0)])
def test_vicreg_is_its_formula(weights: tuple[float, float, float], gamma: float) -> None:
    loss = VicRegLoss(
        **dict(zip(("invariance", "variance", "covariance"), weights, strict=True)), gamma=gamma
    )
    expected = vicreg(*views(), weights, gamma)
    assert loss(*views()).item() == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_barlow_twins_is_what_the_authors_bn_gives() -> None:
    """Their code standardises with a BatchNorm1d without scale and shift."""
    a, b = views(n=64, dim=12)
    norm = nn.BatchNorm1d(12, affine=False, dtype=torch.float64)
    c = norm(a).T @ norm(b) / len(a)
    off = c.flatten()[:-1].view(11, 13)[:, 1:]
    expected = (c.diagonal() - 1).square().sum() + 0.0051 * off.square().sum()
    torch.testing.assert_close(
        create_component("loss", "barlow-twins")(a, b), expected, rtol=1e-12, atol=0
    )


@pytest.mark.parametrize(
    "loss", [*LOSSES, VicRegLoss(gamma=3.0, invariance=25.0, variance=25.0, covariance=1.0)]
)
def test_gradient_flows_into_both_sides_and_is_the_slope(loss: nn.Module) -> None:
    a, b = (z.requires_grad_() for z in views())
    assert torch.autograd.gradcheck(loss, (a, b), atol=1e-6, rtol=1e-5)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(loss(a, b), (a, b)))


@pytest.mark.parametrize("loss", LOSSES)
def test_neither_order_nor_side_nor_a_shift_is_known_to_them(loss: nn.Module) -> None:
    a, b = views()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    shift = torch.arange(DIM, dtype=torch.float64)  # what a bias of the last fc would do
    for changed in ((b, a), (a[order], b[order]), (a + shift, b + shift)):
        torch.testing.assert_close(loss(*changed), loss(a, b), rtol=1e-11, atol=0)


def test_they_are_0_where_views_agree_and_channels_are_independent() -> None:
    hadamard = torch.tensor(  # columns but the first: mean 0, orthogonal
        [[1, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]], dtype=torch.float64
    )
    assert create_component("loss", "vicreg")(hadamard, hadamard).item() == 0  # std 1.15 > gamma
    assert create_component("loss", "barlow-twins")(hadamard, hadamard).item() == pytest.approx(
        0, abs=1e-8
    )
    for loss in (create_component("loss", "barlow-twins"), create_component("loss", "vicreg")):
        assert loss.minimum == 0.0


def test_a_collapse_costs() -> None:
    """All of Σ (1 - 0)²; 2 μ (γ - sqrt ε)."""
    point = torch.ones(N, DIM, dtype=torch.float64, requires_grad=True)
    assert create_component("loss", "barlow-twins")(point, point).item() == pytest.approx(DIM)
    assert create_component("loss", "vicreg")(point, point).item() == pytest.approx(
        2 * 25 * (1 - 0.01)
    )
    for loss in LOSSES:
        (gradient,) = torch.autograd.grad(loss(point, point), point)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_in_a_model_one_pair_is_the_whole_loss(loss: nn.Module) -> None:
    def model(sides: str) -> Siamese:
        torch.manual_seed(0)
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh())
        policy = create_component("gradient", "none", sides=sides)
        head = nn.Linear(8, DIM)
        return Siamese(backbone, head, NoPredictor(), policy, loss, in_dim=8, dim=DIM).double()

    generator = torch.Generator().manual_seed(1)
    batch = Batch([*torch.randn(2, N, 3, 2, 2, dtype=torch.float64, generator=generator)])
    one, both = model("one"), model("both")
    z = [one.projector(one.backbone(x)) for x in batch.views]
    torch.testing.assert_close(one(batch), loss(*z), rtol=1e-12, atol=0)
    torch.testing.assert_close(both(batch), loss(*z), rtol=1e-12, atol=0)
