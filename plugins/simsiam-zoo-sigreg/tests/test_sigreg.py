"""SIGReg against scipy's integral and a closed form; the loss against the paper's formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor, nn

from simsiam_zoo.model.heads import NoPredictor
from simsiam_zoo.plugin import Batch, Siamese, create_component
from simsiam_zoo_sigreg.sigreg import SigRegLoss
from simsiam_zoo_sigreg.view_mean import ViewMean

DIM = 4


def sigreg(dim: int = DIM, **params: float) -> SigRegLoss:
    stated = {"lambd": 0.3, "slices": 3, "knots": 17, "t_max": 3.0, **params}
    return SigRegLoss(dim=dim, **stated).double()  # type: ignore[arg-type]


def sample(n: int = 9, dim: int = DIM, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(n, dim, dtype=torch.float64, generator=generator) + 0.4


def integral(loss: SigRegLoss, z: Tensor) -> float:
    """The mean over the directions of the statistic, by scipy's quadrature from -t_max to t_max."""

    def integrand(t: float, x: np.ndarray) -> float:
        empirical = np.exp(1j * t * x).mean()
        return float(abs(empirical - math.exp(-(t**2) / 2)) ** 2 * math.exp(-(t**2) / 2))

    projected = (z @ loss.directions).numpy().T  # [slices, N]
    found = [quad(integrand, -loss.t_max, loss.t_max, args=(x,), limit=200)[0] for x in projected]
    return len(z) * float(np.mean(found))


@pytest.mark.parametrize("t_max", [3.0, 5.0])
def test_it_is_the_integral_and_the_default_knots_come_near_it(t_max: float) -> None:
    z, exact = sample(), integral(sigreg(t_max=t_max), sample())
    assert sigreg(t_max=t_max, knots=2001).statistic(z).item() == pytest.approx(exact, rel=1e-6)
    assert sigreg(t_max=t_max).statistic(z).item() == pytest.approx(exact, rel=1e-2)


def test_over_all_t_it_is_the_closed_form_of_epps_and_pulley() -> None:
    """√(2π) (Σ_jk exp(-(x_j - x_k)²/2) / N - √2 Σ_j exp(-x_j²/4) + N / √3)."""
    z, loss = sample(), sigreg(t_max=10.0, knots=401)
    x = z @ loss.directions  # [N, slices]
    pairs = (-(x[:, None] - x[None]).square() / 2).exp().sum(dim=(0, 1)) / len(x)
    own = math.sqrt(2) * (-x.square() / 4).exp().sum(dim=0)
    expected = math.sqrt(2 * math.pi) * (pairs - own + len(x) / math.sqrt(3))
    torch.testing.assert_close(loss.statistic(z), expected.mean(), rtol=1e-10, atol=0)


def test_it_is_small_for_a_normal_sample_alone() -> None:
    """Its expectation is then ∫ (1 - φ²) φ dt, whatever N; for any other sample it grows with N."""
    n, loss = 4096, sigreg(dim=16, slices=256)
    z = torch.randn(n, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = quad(lambda t: (1 - math.exp(-(t**2))) * math.exp(-(t**2) / 2), -3, 3)[0]
    assert loss.statistic(z).item() == pytest.approx(expected, rel=0.2)
    narrow = torch.ones(16, dtype=torch.float64)
    narrow[8:] = 0.1
    others = {"anisotropic": z * narrow, "shifted": z + 0.3, "wide": 2 * z}
    for name, other in others.items():
        assert loss.statistic(other) > 10 * expected, name
    collapsed = quad(lambda t: (1 - math.exp(-(t**2) / 2)) ** 2 * math.exp(-(t**2) / 2), -3, 3)[0]
    assert loss.statistic(0 * z).item() == pytest.approx(n * collapsed, rel=1e-2)


def test_the_gradient_is_the_slope_for_both_sides_and_at_a_collapse() -> None:
    loss, p, z = sigreg(), sample(5).requires_grad_(), sample(5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(loss, (p, z), atol=1e-6, rtol=1e-5)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(loss(p, z), (p, z)))
    point = torch.full((5, DIM), 0.5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(point, point), point)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0  # it leaves a point that is not the origin


@pytest.mark.parametrize("views", [2, 4])
def test_with_the_mean_of_the_views_it_is_lejepas_loss(views: int) -> None:
    """(1 - λ) mean |z_v - mean_v z|² + λ mean_v SIGReg(z_v), as the paper's algorithm 2 has it."""
    torch.manual_seed(0)
    backbone, head = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh()), nn.Linear(8, DIM)
    loss, policy = sigreg(), ViewMean(views=views)
    parts = (backbone, head, NoPredictor(), policy, loss)
    siamese = Siamese(*parts, in_dim=8, dim=DIM).double()
    batch = Batch([*torch.randn(views, 7, 3, 2, 2, dtype=torch.float64)])
    z = torch.stack([head(backbone(x)) for x in batch.views])  # [V, N, dim]
    distance = (z - z.mean(dim=0)).square().mean()
    statistic = sum(loss.statistic(each) for each in z) / views
    expected = 0.7 * distance + 0.3 * statistic
    found, output = siamese.step(batch)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    weights = [*siamese.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(found, weights), torch.autograd.grad(expected, weights)
    )
    torch.testing.assert_close(torch.stack([*output.embeddings]), z.detach())


def test_directions_are_units_one_set_for_a_step_and_another_for_the_next() -> None:
    torch.manual_seed(3)
    first, other = sigreg(slices=8), sigreg(slices=8)
    torch.testing.assert_close(first.directions.norm(dim=0), torch.ones(8).double())
    before = first.directions.clone()
    for loss in (first, other):
        loss.after_step(None, None, 0, 9)  # type: ignore[arg-type]
    assert torch.equal(first.directions, other.directions)  # so on every rank
    assert not torch.isclose(first.directions, before).any()
    assert "directions" in first.state_dict()  # what a run goes on with


def test_it_is_made_on_the_meta_device_too() -> None:
    with torch.device("meta"):
        loss = create_component("loss", "sigreg", dim=DIM)
        assert loss(torch.zeros(2, DIM), torch.zeros(2, DIM)).is_meta
