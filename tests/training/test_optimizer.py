from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe.sections import Optim
from simsiam_zoo.runtime.optim import Schedule, all_finite
from simsiam_zoo.training.optimizer import learning_rates, make_optimizer

CPU = torch.device("cpu")


OPTIMIZERS = ["sgd", "lars", "adamw"]


def optimizer_of(
    parts: dict[str, nn.Module], own: dict[str, object] | None = None, **settings: object
) -> torch.optim.Optimizer:
    """By default SGD without momentum at lr 0.1; `own` holds the settings of single parts."""
    plain = {"lr": 0.1, "weight_decay": 0.01, "parts": own or {}}
    if settings.get("name", "sgd") == "sgd":
        plain["momentum"] = 0.0
    return make_optimizer(Optim.model_validate({**plain, **settings}), parts, 256, CPU)


def test_cosine_is_torchs_and_its_ends_are_closed_forms():
    steps, lr = 37, 0.3
    theirs = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=steps)
    schedule = Schedule(steps)
    for step in range(steps):
        assert lr * schedule.factor("cosine", step) == pytest.approx(
            theirs.param_groups[0]["lr"], abs=1e-12
        )
        theirs.step()
        annealing.step()
    assert schedule.factor("cosine", 0) == 1
    last = 0.5 * (1 + math.cos(math.pi * (steps - 1) / steps))  # just short of 0
    assert schedule.factor("cosine", steps - 1) == pytest.approx(last, abs=1e-15)
    assert schedule.factor("cosine", steps) == pytest.approx(0, abs=1e-15)
    assert Schedule(100).factor("cosine", 50) == pytest.approx(0.5)


def test_the_cosine_may_end_above_zero():
    """Torch's own, whose `eta_min` is an lr."""
    steps, lr, share = 20, 1.6, 0.001
    theirs = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, steps, eta_min=share * lr)
    schedule = Schedule(steps, final=share)
    for step in range(steps):
        assert lr * schedule.factor("cosine", step) == pytest.approx(
            theirs.param_groups[0]["lr"], abs=1e-12
        )
        theirs.step()
        annealing.step()
    assert schedule.factor("cosine", steps) == pytest.approx(share)
    assert schedule.factor("constant", steps) == 1


def test_norms_and_biases_may_have_an_lr_of_their_own():
    """Barlow Twins': 0.2 for weights, 0.0048 for biases and norms (arXiv:2103.03230, sec. 2.2)."""
    part = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = optimizer_of({"backbone": part}, lr=0.2, norm_and_bias_lr_scale=0.024)
    before = [p.detach().clone() for p in part.parameters()]
    for p in part.parameters():
        p.grad = torch.ones_like(p)
    Schedule(10).apply(optimizer, 0)
    optimizer.step()
    for p, old in zip(part.parameters(), before, strict=True):
        lr = 0.2 if p.ndim > 1 else 0.0048
        torch.testing.assert_close(p.detach(), old - lr * (1 + 0.01 * old))
    assert learning_rates(optimizer) == {"backbone": 0.2}


def test_warm_up_rises_in_equal_steps_to_the_peak_and_the_curve_starts_there():
    schedule = Schedule(steps=25, warmup=5)
    for kind in ("cosine", "constant"):
        rise = [schedule.factor(kind, step) for step in range(6)]
        assert rise[0] > 0
        assert rise[5] == 1
        assert [b - a for a, b in itertools.pairwise(rise)] == pytest.approx([1 / 6] * 5)
    assert schedule.factor("cosine", 15) == pytest.approx(0.5)  # half of the 20 steps that follow
    assert schedule.factor("constant", 24) == 1
    everything = Schedule(steps=5, warmup=5)
    assert all(0 < everything.factor("cosine", step) <= 1 for step in range(6))


def test_each_part_has_its_own_peak_and_curve():
    parts = {"backbone": nn.Linear(2, 2), "predictor": nn.Linear(2, 2)}
    optimizer = optimizer_of(parts, {"predictor": {"lr_scale": 2.0, "schedule": "constant"}})
    schedule = Schedule(10)
    for step in (0, 5, 9, 5):  # a step's lr depends on the step alone, not on the one before
        schedule.apply(optimizer, step)
        cosine = 0.5 * (1 + math.cos(math.pi * step / 10))
        assert learning_rates(optimizer) == pytest.approx(
            {"backbone": 0.1 * cosine, "predictor": 0.2}
        )


def test_weight_decay_reaches_every_parameter_of_a_part():
    """With zero gradients a step is p ← p (1 - lr wd), for BN and biases too."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    predictor = nn.Linear(2, 2)
    for parameter in [*backbone.parameters(), *predictor.parameters()]:
        nn.init.uniform_(parameter, 0.5, 1.0)
        parameter.grad = torch.zeros_like(parameter)
    before = {name: p.detach().clone() for name, p in backbone.named_parameters()}
    unmoved = predictor.weight.detach().clone()
    parts = {"backbone": backbone, "predictor": predictor}
    own: dict[str, object] = {"predictor": {"weight_decay": 0.0}}
    optimizer = optimizer_of(parts, own, momentum=0.9, lr=0.5, weight_decay=0.04)
    Schedule(10).apply(optimizer, 0)
    optimizer.step()
    assert len(before) == 6
    for name, parameter in backbone.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name] * (1 - 0.5 * 0.04), msg=name)
    assert torch.equal(predictor.weight.detach(), unmoved)


def test_the_step_is_plain_sgd_with_momentum():
    part = nn.Linear(1, 1, bias=False)
    nn.init.constant_(part.weight, 1.0)
    optimizer = optimizer_of({"loss": part}, momentum=0.9, schedule="constant")
    weight, velocity = 1.0, 0.0
    for gradient in (1.0, -2.0, 0.5):
        part.weight.grad = torch.full_like(part.weight, gradient)
        Schedule(3).apply(optimizer, 0)
        optimizer.step()
        velocity = 0.9 * velocity + gradient + 0.01 * weight
        weight -= 0.1 * velocity
        assert part.weight.item() == pytest.approx(weight, rel=1e-6)


@pytest.fixture
def memory_is_dirty() -> Iterator[None]:
    """What torch hands out without a value is NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.usefixtures("memory_is_dirty")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_overflow_in_the_first_step_leaves_nothing_behind(name):
    """As fp16 begins: the first scale of the loss is there to overflow."""
    weights = []
    for overflows in (0, 1):
        part = nn.Linear(3, 2)
        with torch.no_grad():
            part.weight.copy_(torch.arange(6.0).view(2, 3)), part.bias.fill_(1.0)
        own = {} if name == "adamw" else {"momentum": 0.9}
        optimizer = optimizer_of({"loss": part}, name=name, schedule="constant", **own)
        Schedule(3).apply(optimizer, 0)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0 ** (3 + overflows))
        for slope in [math.inf] * overflows + [2.0, -1.0]:
            optimizer.zero_grad()
            scaler.scale(slope * part(torch.tensor([1.0, 2.0, 4.0])).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
        weights.append(torch.cat([part.weight.detach().flatten(), part.bias.detach()]))
    assert torch.equal(*weights)


def test_an_adamw_step_is_the_papers():
    """arXiv:1711.05101, algorithm 2: the weight decay is no part of the gradient."""
    part = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(part.weight, 1.0)
    optimizer = optimizer_of({"loss": part}, name="adamw", betas=[0.8, 0.9])
    weight, mean, square = 1.0, 0.0, 0.0
    for step, gradient in enumerate((1.0, -2.0, 0.5)):
        part.weight.grad = torch.full_like(part.weight, gradient)
        Schedule(3).apply(optimizer, step)
        optimizer.step()
        lr = 0.1 * 0.5 * (1 + math.cos(math.pi * step / 3))
        mean = 0.8 * mean + 0.2 * gradient
        square = 0.9 * square + 0.1 * gradient**2
        direction = mean / (1 - 0.8 ** (step + 1))
        direction /= math.sqrt(square / (1 - 0.9 ** (step + 1))) + 1e-8
        weight -= lr * (direction + 0.01 * weight)
        assert part.weight.item() == pytest.approx(weight, rel=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_norm_scales_and_biases_go_without_weight_decay_where_they_are_excluded(name):
    """With zero gradients only the decay moves a parameter."""
    parts = {
        "backbone": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
        "projector": nn.Sequential(nn.Linear(4, 2), nn.LayerNorm(2)),
    }
    for part in parts.values():
        for parameter in part.parameters():
            nn.init.uniform_(parameter, 0.5, 1.0)
            parameter.grad = torch.zeros_like(parameter)
    before = {
        (part, key): value.detach().clone()
        for part, module in parts.items()
        for key, value in module.named_parameters()
    }
    own: dict[str, object] = {"backbone": {"exclude_norm_and_bias": True}}
    optimizer = optimizer_of(parts, own, name=name, lr=0.5, weight_decay=0.04)
    Schedule(10).apply(optimizer, 0)
    optimizer.step()
    still = {
        (part, key)
        for part, module in parts.items()
        for key, value in module.named_parameters()
        if torch.equal(value.detach(), before[part, key])
    }
    assert still == {("backbone", "0.bias"), ("backbone", "1.weight"), ("backbone", "1.bias")}


def test_a_part_has_one_lr_however_many_groups_it_has():
    parts = {"backbone": nn.Linear(2, 2), "predictor": nn.Linear(2, 2, bias=False)}
    own: dict[str, object] = {"predictor": {"lr_scale": 2.0, "schedule": "constant"}}
    optimizer = optimizer_of(parts, own, name="lars", lr=0.2, exclude_norm_and_bias=True)
    assert len(optimizer.param_groups) == 3  # the predictor has nothing to exclude
    Schedule(10).apply(optimizer, 5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.1, 0.4])
    assert learning_rates(optimizer) == pytest.approx({"backbone": 0.1, "predictor": 0.4})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_network_without_anything_to_train_is_refused(name):
    frozen = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(InputError, match="anything to train"):
        optimizer_of({"loss": frozen}, name=name)


def test_frozen_parameters_are_in_no_group_and_shared_ones_in_the_first():
    shared = nn.Linear(2, 2)
    frozen = nn.Linear(2, 2).requires_grad_(False)
    parts = {
        "backbone": nn.ModuleList([shared, nn.Linear(2, 2)]),
        "projector": nn.ModuleList([shared, frozen]),  # nothing of its own that trains
        "predictor": nn.ModuleList([shared, nn.Linear(2, 3)]),
        "loss": nn.Identity(),
    }
    optimizer = optimizer_of(parts)
    groups = {group["part"]: group["params"] for group in optimizer.param_groups}
    assert groups.keys() == {"backbone", "predictor"}
    grouped = [id(p) for params in groups.values() for p in params]
    trainable = {id(p) for part in parts.values() for p in part.parameters() if p.requires_grad}
    assert sorted(grouped) == sorted(trainable)
    assert id(shared.weight) in {id(p) for p in groups["backbone"]}


def test_finite_looks_at_every_number():
    assert all_finite([torch.ones(3), torch.tensor([2**40])])
    for bad in (math.nan, math.inf, -math.inf):
        assert not all_finite([torch.ones(3), torch.tensor([1.0, bad])])
