"""The momentum target against an average that is kept by hand."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from simsiam_zoo import Recipe
from simsiam_zoo.catalog import PARTS
from simsiam_zoo.plugin import Batch, InputError, Siamese, create_component
from simsiam_zoo.training.optimizer import make_optimizer
from simsiam_zoo_byol.momentum import Momentum

N, DIM, STEPS = 6, 4, 7


def network(**params: object) -> Siamese:
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 2), nn.BatchNorm2d(8), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    siamese = Siamese(
        backbone,
        nn.Linear(8, DIM),
        nn.Linear(DIM, DIM),
        create_component("gradient", "momentum", **params),
        create_component("loss", "mse"),
        in_dim=8,
        dim=DIM,
    )
    siamese = siamese.double().train()
    siamese.gradient.setup(siamese)
    return siamese


def batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch([*torch.randn(2, N, 3, 4, 4, dtype=torch.float64, generator=generator)])


def encoder(siamese: Siamese) -> list[nn.Parameter]:
    return [*siamese.backbone.parameters(), *siamese.projector.parameters()]


def sgd_step(siamese: Siamese, seed: int, number: int | None = None) -> Tensor:
    """A step of SGD; one that has a number is followed by the target."""
    loss, output = siamese.step(batch(seed))
    trained = [p for p in siamese.parameters() if p.requires_grad]
    for parameter, gradient in zip(trained, torch.autograd.grad(loss, trained), strict=True):
        parameter.data -= 0.5 * gradient
    if number is not None:
        siamese.after_step(output, number, STEPS)
    return loss.detach()


def test_tau_goes_from_its_start_to_one_as_half_a_cosine() -> None:
    policy = create_component("gradient", "momentum", tau=0.99)
    assert policy.tau_at(0, 100) == pytest.approx(0.99)
    assert policy.tau_at(50, 100) == pytest.approx(0.995)
    assert policy.tau_at(100, 100) == 1.0
    for k in range(100):
        closed = 1 - 0.01 * math.cos(math.pi * k / 200) ** 2  # (cos x + 1) / 2 = cos² (x / 2)
        assert policy.tau_at(k, 100) == pytest.approx(closed, abs=1e-15)
    assert {Momentum(tau=0.9, schedule="constant").tau_at(k, 9) for k in range(10)} == {0.9}


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_target_is_the_weighted_sum_of_all_weights_there_were(schedule: str) -> None:
    """In closed form: ξ = θ_init Π τ + Σ_k θ_k (1 - τ_k) Π_{j > k} τ_j."""
    siamese = network(tau=0.7, schedule=schedule)
    history = [[p.detach().numpy().copy() for p in encoder(siamese)]]
    for step in range(STEPS):
        sgd_step(siamese, step, step)
        history.append([p.detach().numpy().copy() for p in encoder(siamese)])
    taus = [1 - 0.3 * (np.cos(np.pi * k / STEPS) + 1) / 2 for k in range(STEPS)]
    if schedule == "constant":
        taus = [0.7] * STEPS
    shares = [np.prod(taus)]
    shares += [(1 - taus[k]) * np.prod(taus[k + 1 :]) for k in range(STEPS)]
    assert sum(shares) == pytest.approx(1, abs=1e-12)
    for place, follower in enumerate(siamese.gradient.target.parameters()):
        expected = sum(s * weights[place] for s, weights in zip(shares, history, strict=True))
        np.testing.assert_allclose(follower.numpy(), expected, rtol=1e-11, atol=1e-13)


def test_the_loss_is_the_papers_and_the_target_is_a_constant() -> None:
    """(|q/|q| - z'/|z'||² of both directions) / 2, BN by each view's own batch on both sides."""
    siamese = network(tau=0.5)
    sgd_step(siamese, 0, 0)  # the target is another network from here
    online = nn.Sequential(copy.deepcopy(siamese.backbone), copy.deepcopy(siamese.projector))
    target = copy.deepcopy(siamese.gradient.target)
    x1, x2 = batch(1).views
    total = 0.0
    for x, other in ((x1, x2), (x2, x1)):
        q = siamese.predictor(online(x)).detach().numpy()
        z = target(other).detach().numpy()
        for a, b in zip(q, z, strict=True):
            total += 2 - 2 * (a @ b) / np.sqrt((a @ a) * (b @ b))
    loss = siamese(batch(1))
    assert loss.item() == pytest.approx(total / N / 2, rel=1e-12)
    loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in siamese.gradient.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder(siamese)[:1])
    assert siamese.predictor.weight.grad.abs().sum() > 0


def test_the_presets_step_is_the_papers_with_the_sum_of_both_directions() -> None:
    """LARS adapts no norm and no bias: with the mean they would move by half of that step."""
    recipe = Recipe.make("byol")
    siamese = network(tau=recipe.gradient.params["tau"])
    siamese.loss = recipe.part("loss").create(dim=DIM)
    parts = {part: siamese.get_submodule(part) for part in PARTS}
    optim = recipe.optim.model_copy(update={"weight_decay": 0.0})
    optimizer = make_optimizer(optim, parts, recipe.training.batch_size, torch.device("cpu"))
    twin = copy.deepcopy(siamese)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    siamese(batch(0)).backward()
    optimizer.step()

    x1, x2 = batch(0).views
    total = torch.zeros((), dtype=torch.float64)
    for x, other in ((x1, x2), (x2, x1)):
        q = twin.predictor(twin.projector(twin.backbone(x)))
        z = twin.gradient.target(other).detach()
        cosine = (q * z).sum(dim=1) / (q.norm(dim=1) * z.norm(dim=1))
        total = total + (2 - 2 * cosine).mean()
    trained = [*encoder(twin), *twin.predictor.parameters()]
    gradients = torch.autograd.grad(total, trained)
    moved = [*encoder(siamese), *siamese.predictor.parameters()]
    for before, gradient, after in zip(trained, gradients, moved, strict=True):
        ratio = 0.001 * before.norm() / gradient.norm() if before.ndim > 1 else 1.0
        expected = before.detach() - 0.1 * ratio * gradient
        torch.testing.assert_close(after.detach(), expected.detach(), rtol=1e-9, atol=1e-12)


def test_the_target_has_running_statistics_of_its_own_and_uses_its_batchs() -> None:
    siamese = network(tau=1.0, schedule="constant")
    target = siamese.gradient.target
    siamese(batch(0))
    assert target.backbone[1].num_batches_tracked == 2  # one pass of each view
    for _ in range(3):
        sgd_step(siamese, 1)
    norm, own = target.backbone[1], siamese.backbone[1]
    assert not torch.equal(norm.running_mean, own.running_mean)
    with torch.no_grad():
        before = target(batch(2).views[0])
        norm.running_mean += 100
        torch.testing.assert_close(target(batch(2).views[0]), before, rtol=0, atol=0)


def test_the_embeddings_for_the_monitor_are_the_online_networks() -> None:
    siamese = network(tau=0.5)
    sgd_step(siamese, 0, 0)  # the target is another network from here
    _, output = siamese.step(batch(1))
    z = [siamese.encode(x) for x in batch(1).views]
    torch.testing.assert_close([*output.embeddings], z, rtol=0, atol=0)


def test_the_optimiser_does_not_have_the_target() -> None:
    siamese = network()
    parts = {part: siamese.get_submodule(part) for part in PARTS}
    optim = Recipe.make("digits").optim
    optimizer = make_optimizer(optim, parts, 256, torch.device("cpu"))
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in [*encoder(siamese), *siamese.predictor.parameters()]}


def test_the_target_is_in_the_state_dict() -> None:
    siamese, other = network(tau=0.5), network(tau=0.5)
    for step in range(3):
        sgd_step(siamese, step, step)
    state = siamese.state_dict()
    assert "gradient.target.backbone.0.weight" in state
    other.load_state_dict(state)
    torch.testing.assert_close(other(batch(5)), siamese(batch(5)), rtol=0, atol=0)


def test_at_the_start_it_is_simsiam_and_with_tau_0_it_stays_so() -> None:
    """But for BN's running statistics, which nothing is normalised by in training."""
    siamese = network(tau=0.0, schedule="constant")
    for step in range(3):
        x1, x2 = batch(step).views
        pairs = siamese.gradient(siamese, batch(step)).pairs
        z = [siamese.projector(siamese.backbone(x)).detach() for x in (x2, x1)]
        torch.testing.assert_close([target for _, target in pairs], z, rtol=0, atol=0)
        sgd_step(siamese, step, step)


def test_it_refuses_what_it_cannot_do() -> None:
    with pytest.raises(InputError, match="one of cosine, constant"):
        create_component("gradient", "momentum", schedule="linear")
    siamese = network()
    siamese.gradient = create_component("gradient", "momentum")
    with pytest.raises(InputError, match="has no target network"):
        siamese(batch(0))
