"""The set predictors against their formulas, computed by numpy in other ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simsiam_zoo.model.losses import CosineLoss
from simsiam_zoo.plugin import Batch, InputError, Siamese, StepOutput, create_component

N, DIM, STEPS = 9, 5, 6


def network(predictor: nn.Module) -> Siamese:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh())
    head, policy, loss = (
        nn.Linear(8, DIM),
        create_component("gradient", "stop-gradient"),
        CosineLoss(),
    )
    return Siamese(backbone, head, predictor, policy, loss, in_dim=8, dim=DIM).double().train()


def batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch([*torch.randn(2, N, 3, 2, 2, dtype=torch.float64, generator=generator)])


def step(siamese: Siamese, number: int) -> NDArray[np.float64]:
    """One step of SGD and what follows it; z of both views, [2N, dim], from before it."""
    loss, output = siamese.step(batch(number))
    z = [siamese.projector(siamese.backbone(x)).detach() for x in batch(number).views]
    trained = [*siamese.parameters()]
    for parameter, gradient in zip(trained, torch.autograd.grad(loss, trained), strict=True):
        parameter.data -= 0.5 * gradient
    siamese.after_step(output, number, STEPS)
    return torch.cat(z).numpy()


def correlation(seed: int = 0) -> Tensor:
    z = torch.randn(40, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    z = z * torch.tensor([3.0, 1.0, 0.5, 0.2, 0.1])
    return z.T @ z / 40


@pytest.mark.parametrize("rho", [0.3, 0.9])
def test_the_correlation_is_the_moving_average_over_both_views(rho: float) -> None:
    siamese = network(create_component("predictor", "directcopy", dim=DIM, rho=rho))
    average = None
    for number in range(STEPS):
        z = step(siamese, number)
        outer = sum(np.outer(row, row) for row in z) / (2 * N)
        average = outer if average is None else rho * average + (1 - rho) * outer
        found = siamese.predictor.correlation.numpy()
        np.testing.assert_allclose(found, average, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_directpred_squares_to_the_correlation(eps: float) -> None:
    """(W - ε I)² = F, and W is symmetric: that is eq. 18 without its eigenvectors."""
    f = correlation()
    w = create_component("predictor", "directpred", dim=DIM, eps=eps).from_correlation(f).numpy()
    root = w - eps * np.eye(DIM)
    np.testing.assert_allclose(root @ root, f / np.linalg.norm(f, 2), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(w, w.T, atol=1e-14)
    assert np.linalg.eigvalsh(w).min() > eps  # the positive root
    assert np.linalg.eigvalsh(w).max() == pytest.approx(1 + eps)


def test_directpred_is_the_formula_of_the_paper() -> None:
    """p_j = √s_j + ε max_j s_j of F̂ whose largest eigenvalue is 1."""
    f = correlation() / np.linalg.norm(correlation().numpy(), 2)
    u, s, _ = np.linalg.svd(f.numpy())
    expected = sum((np.sqrt(s[j]) + 0.1 * s.max()) * np.outer(u[:, j], u[:, j]) for j in range(DIM))
    w = create_component("predictor", "directpred", dim=DIM, eps=0.1).from_correlation(
        correlation()
    )
    np.testing.assert_allclose(w.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_directset_has_directpred_and_directcopy_as_its_powers() -> None:
    f = correlation()
    options = {"dim": DIM, "eps": 0.1}
    half, one, third = (
        create_component("predictor", "directset", alpha=a, **options).from_correlation(f)
        for a in (0.5, 1, 1 / 3)
    )
    pred, copy = (
        create_component("predictor", name, **options) for name in ("directpred", "directcopy")
    )
    torch.testing.assert_close(half, pred.from_correlation(f), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(one, copy.from_correlation(f), rtol=1e-9, atol=1e-12)
    root = third.numpy() - 0.1 * np.eye(DIM)
    scaled = f.numpy() / np.linalg.norm(f.numpy(), 2)
    np.testing.assert_allclose(root @ root @ root, scaled, rtol=1e-8, atol=1e-12)


def test_directcopy_is_the_correlation_by_its_spectral_norm() -> None:
    for seed in range(5):
        f = correlation(seed)
        expected = f.numpy() / np.linalg.norm(f.numpy(), 2) + 0.3 * np.eye(DIM)
        found = (
            create_component("predictor", "directcopy", dim=DIM, eps=0.3)
            .from_correlation(f)
            .numpy()
        )
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["directpred", "directset", "directcopy"])
def test_it_is_set_after_steps_and_starts_as_the_identity(name: str) -> None:
    siamese = network(create_component("predictor", name, dim=DIM, every=3))
    z = siamese.encode(batch(0).views[0])
    torch.testing.assert_close(siamese.predict(z), z, rtol=0, atol=0)
    weights = []
    for number in range(STEPS):
        step(siamese, number)
        weights.append(siamese.predictor.weight.detach().clone())
        predictor = siamese.predictor
        set_anew = torch.equal(weights[-1], predictor.from_correlation(predictor.correlation))
        assert set_anew is (number % 3 == 0)


@pytest.mark.parametrize("name", ["directpred", "directset", "directcopy"])
def test_between_two_settings_it_is_trained_as_an_fc_layer_is(
    name: str,
) -> None:
    """A network whose predictor is an `nn.Linear` of the same weights takes the same step."""
    siamese = network(create_component("predictor", name, dim=DIM, every=3))
    step(siamese, 0)
    linear = nn.Linear(DIM, DIM, bias=False).double()
    linear.weight.data.copy_(siamese.predictor.weight.detach())
    twin = network(linear)
    for name in ("backbone", "projector"):
        twin.get_submodule(name).load_state_dict(siamese.get_submodule(name).state_dict())
    for number in (1, 2):
        step(siamese, number)
        step(twin, number)
    torch.testing.assert_close(siamese.predictor.weight, linear.weight, rtol=1e-12, atol=1e-14)
    for ours, theirs in zip(siamese.backbone.parameters(), twin.backbone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["directpred", "directset", "directcopy"])
def test_gradient_flows_through_it_and_none_into_it(name: str) -> None:
    siamese = network(create_component("predictor", name, dim=DIM))
    for number in range(2):
        step(siamese, number)
    assert not [*siamese.predictor.parameters()]
    z = torch.randn(N, DIM, dtype=torch.float64, requires_grad=True)
    up = torch.randn(N, DIM, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(siamese.predict(z), z, up)
    expected = up.numpy() @ siamese.predictor.weight.numpy()
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-12)
    assert not siamese.predictor.weight.requires_grad


@pytest.mark.parametrize("name", ["directpred", "directset", "directcopy"])
def test_its_state_is_in_the_state_dict(name: str) -> None:
    siamese, other = (network(create_component("predictor", name, dim=DIM)) for _ in range(2))
    for number in range(3):
        step(siamese, number)
    other.load_state_dict(siamese.state_dict())
    for each in (siamese, other):
        step(each, 3)
    torch.testing.assert_close(other.state_dict(), siamese.state_dict(), rtol=0, atol=0)


def test_ranks_average_over_the_global_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank's matrix passes distributed.mean, and what that gives is what is kept."""
    siamese = network(create_component("predictor", "directcopy", dim=DIM))
    monkeypatch.setattr("simsiam_zoo_dynamics.direct.mean", lambda x: 2 * x)
    z = step(siamese, 0)
    np.testing.assert_allclose(siamese.predictor.correlation.numpy(), 2 * z.T @ z / (2 * N))


def test_a_policy_that_states_no_embeddings_is_refused() -> None:
    siamese = network(create_component("predictor", "directcopy", dim=DIM))
    with pytest.raises(InputError, match="StopGradient states no embeddings"):
        siamese.after_step(StepOutput([]), 0, STEPS)


@pytest.mark.parametrize("name", ["directpred", "directset", "directcopy"])
def test_a_collapsed_or_diverged_z_is_no_crash(name: str) -> None:
    zero = create_component("predictor", name, dim=DIM).from_correlation(torch.zeros(DIM, DIM))
    torch.testing.assert_close(zero, 0.1 * torch.eye(DIM))
    siamese = network(create_component("predictor", name, dim=DIM))
    z = [torch.full((N, DIM), torch.nan), torch.zeros(N, DIM)]
    siamese.after_step(StepOutput([], z), 0, STEPS)
    assert siamese.predictor.weight.isnan().any()


def test_half_precision_z_is_correlated_in_the_predictors_own_precision() -> None:
    siamese = network(create_component("predictor", "directcopy", dim=DIM)).float()
    z = torch.randn(N, DIM).bfloat16()
    siamese.after_step(StepOutput([], [z, z]), 0, STEPS)
    expected = z.float().T @ z.float() / N
    torch.testing.assert_close(siamese.predictor.correlation, expected, rtol=1e-5, atol=1e-6)
