"""NT-Xent against the paper's formula, written out in loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from simsiam_zoo.model.heads import NoPredictor
from simsiam_zoo.plugin import Batch, GradientPolicy, Siamese, create_component
from simsiam_zoo_contrastive.nt_xent import NTXentLoss

N, DIM = 6, 5


def simclr(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Algorithm 1 of arXiv:2002.05709: z_{2k-1} and z_{2k} are the views of image k."""
    z = [vector for pair in zip(z1, z2, strict=True) for vector in pair]
    s = [[torch.dot(a, b) / (a.norm() * b.norm()) for b in z] for a in z]

    def one(i: int, j: int) -> Tensor:
        others = [torch.exp(s[i][k] / temperature) for k in range(len(z)) if k != i]
        return -torch.log(torch.exp(s[i][j] / temperature) / sum(others))

    images = range(len(z1))
    return sum(one(2 * k, 2 * k + 1) + one(2 * k + 1, 2 * k) for k in images) / (2 * len(z1))


def views(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z1, z2 = torch.randn(2, N, DIM, dtype=torch.float64, generator=generator)
    return z1.requires_grad_(), z2.requires_grad_()


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_it_is_the_formula_of_simclr_with_its_gradient(temperature: float) -> None:
    z = views()
    expected, found = simclr(*z, temperature), NTXentLoss(temperature=temperature)(*z)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(found, z), torch.autograd.grad(expected, z), rtol=1e-9, atol=1e-12
    )


def model(policy: GradientPolicy, predictor: nn.Module) -> Siamese:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh())
    loss = NTXentLoss(temperature=0.5)
    head = nn.Linear(8, DIM)
    return Siamese(backbone, head, predictor, policy, loss, in_dim=8, dim=DIM).double()


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch([*torch.randn(2, N, 3, 2, 2, dtype=torch.float64, generator=generator)])


def test_one_pair_of_views_is_simclr_and_so_is_the_mean_over_both() -> None:
    """The model averages over (z1, z2) and (z2, z1), or takes (z1, z2) alone: the same loss."""
    one, both = (
        model(create_component("gradient", "none", sides=sides), NoPredictor())
        for sides in ("one", "both")
    )
    z1, z2 = (one.projector(one.backbone(x)) for x in batch().views)
    expected = simclr(z1, z2, 0.5)
    for siamese in (one, both):
        loss = siamese(batch())
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
        loss.backward()
    for a, b in zip(one.parameters(), both.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12)


def test_with_predictor_and_stop_gradient_it_is_symmetrised_and_targets_are_constants() -> None:
    torch.manual_seed(2)
    siamese = model(create_component("gradient", "stop-gradient"), nn.Linear(DIM, DIM))
    loss = siamese(batch())
    z1, z2 = (siamese.projector(siamese.backbone(x)) for x in batch().views)
    p1, p2 = siamese.predictor(z1), siamese.predictor(z2)
    expected = (simclr(p1, z2.detach(), 0.5) + simclr(p2, z1.detach(), 0.5)) / 2
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    flowing = (simclr(p1, z2, 0.5) + simclr(p2, z1, 0.5)) / 2
    weights = [*siamese.parameters()]
    wrong, right = (
        torch.autograd.grad(each, weights, retain_graph=True) for each in (flowing, expected)
    )
    found = torch.autograd.grad(loss, weights)
    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(found[0], wrong[0], rtol=1e-2)


def test_it_knows_neither_order_nor_length_nor_which_side_is_which() -> None:
    (z1, z2), loss = views(), NTXentLoss(temperature=0.2)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    expected = loss(z1, z2)
    for changed in ((z2, z1), (z1[order], z2[order]), (3 * z1, z2 / 7)):
        torch.testing.assert_close(loss(*changed), expected, rtol=1e-12, atol=0)


def test_closed_forms() -> None:
    """Orthonormal images whose views agree, and a batch that has collapsed."""
    z = torch.eye(4, dtype=torch.float64)
    tau = 0.5
    expected = math.log(math.exp(1 / tau) + 6) - 1 / tau  # 1 positive, 2 x 3 negatives at cosine 0
    assert NTXentLoss(temperature=tau)(z, z).item() == pytest.approx(expected, rel=1e-12)
    same = torch.ones(4, 3, dtype=torch.float64)
    assert NTXentLoss(temperature=tau)(same, same).item() == pytest.approx(math.log(7), rel=1e-12)
    assert (
        create_component("loss", "nt-xent")(z[:1], z[1:2]).item() == 0
    )  # one image: nothing to confuse it with


def test_small_temperatures_and_zero_vectors_stay_finite_in_float32() -> None:
    z1, z2 = (z.detach().float().requires_grad_() for z in views())
    with torch.no_grad():
        z1[0] = 0
    loss = NTXentLoss(temperature=1e-3)(z1, z2)
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, (z1, z2)))
