from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import pytest
import timm.optim
import torch
from torch import nn

from simsiam_zoo.runtime.optim import Lars

MOMENTUM, TRUST = 0.9, 0.001


def weights_and_gradients() -> tuple[list[nn.Parameter], Iterator[list[torch.Tensor]]]:
    """Two tensors in float64, and gradients for as many steps as are wanted."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 2), (4,)]

    def draw() -> list[torch.Tensor]:
        return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]

    return [nn.Parameter(w) for w in draw()], iter(draw, None)


def take_steps(optimizer: torch.optim.Optimizer, params: list, gradients, lrs: list[float]) -> None:
    for lr in lrs:
        for group in optimizer.param_groups:
            group["lr"] = lr
        for p, g in zip(params, next(gradients), strict=True):
            p.grad = g
        optimizer.step()


def by_hand(w: list[float], gradients: list[list[float]], lrs: list[float], decay: float) -> list:
    """Algorithm 1 of arXiv:1708.03888 on one layer, in Python's floats."""
    v = [0.0] * len(w)
    for lr, g in zip(lrs, gradients, strict=True):
        norm_w = math.sqrt(sum(x * x for x in w))
        norm_g = math.sqrt(sum(x * x for x in g))
        local = TRUST * norm_w / (norm_g + decay * norm_w)
        v = [
            MOMENTUM * v_ + lr * local * (g_ + decay * w_)
            for v_, g_, w_ in zip(v, g, w, strict=True)
        ]
        w = [w_ - v_ for w_, v_ in zip(w, v, strict=True)]
    return w


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_three_steps_are_those_of_the_paper_while_the_lr_changes(decay):
    lrs = [3.0, 20.0, 7.0]
    params, gradients = weights_and_gradients()
    drawn = [next(gradients) for _ in lrs]
    expected = [
        by_hand(
            p.detach().flatten().tolist(),
            [step[layer].flatten().tolist() for step in drawn],
            lrs,
            decay,
        )
        for layer, p in enumerate(params)
    ]
    optimizer = Lars(params, momentum=MOMENTUM, weight_decay=decay, trust_coefficient=TRUST)
    take_steps(optimizer, params, iter(drawn), lrs)
    for p, wanted in zip(params, expected, strict=True):
        assert p.detach().flatten().tolist() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("lrs", "inside", "same"),
    [
        ([5.0] * 4, True, True),
        ([1.0, 5.0, 9.0, 2.0], True, False),
        ([1.0, 5.0, 9.0, 2.0], False, True),
    ],
)
def test_with_the_lr_outside_of_the_momentum_it_is_timms(lrs, inside, same):
    """The form of BYOL's, Barlow Twins' and VICReg's code; with a still lr both forms are one."""
    ours, gradients = weights_and_gradients()
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    drawn = [next(gradients) for _ in lrs]
    settings = {"momentum": MOMENTUM, "trust_coefficient": TRUST, "lr_in_momentum": inside}
    lars = Lars(ours, weight_decay=0.05, **settings)
    timms = timm.optim.Lars(theirs, momentum=MOMENTUM, weight_decay=0.05, eps=0.0)
    take_steps(lars, ours, iter(drawn), lrs)
    take_steps(timms, theirs, iter(drawn), lrs)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=0) is same


def test_a_group_that_does_not_adapt_takes_sgds_steps():
    ours, gradients = weights_and_gradients()
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    drawn = [next(gradients) for _ in range(3)]
    lars = Lars([{"params": ours, "adapt": False}], momentum=MOMENTUM)
    take_steps(lars, ours, iter(drawn), [0.1] * 3)
    sgd = torch.optim.SGD(theirs, lr=0.1, momentum=MOMENTUM)
    take_steps(sgd, theirs, iter(drawn), [0.1] * 3)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_a_step_is_as_long_as_the_weights_say_whatever_the_gradients_scale():
    """Without decay the first step has the length lr x trust coefficient x |w|."""
    for scale in (1e-12, 1.0, 1e12):
        params, gradients = weights_and_gradients()
        before = [p.detach().clone() for p in params]
        scaled = ([scale * g for g in step] for step in gradients)
        take_steps(Lars(params, trust_coefficient=TRUST), params, scaled, [2.0])
        for p, old in zip(params, before, strict=True):
            length = (p.detach() - old).norm() / old.norm()
            assert length.item() == pytest.approx(2.0 * TRUST, rel=1e-9)


def test_zero_weights_leave_zero_and_zero_gradients_make_no_nan():
    zero = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    zero.grad = torch.ones_like(zero)
    resting = nn.Parameter(torch.ones(3, dtype=torch.float64))
    resting.grad = torch.zeros_like(resting)
    unused = nn.Parameter(torch.ones(3, dtype=torch.float64))  # no gradient: left as it is
    Lars([zero, resting, unused], lr=0.1).step()
    assert zero.tolist() == pytest.approx([-0.1] * 3)
    assert resting.tolist() == unused.tolist() == [1.0] * 3


def test_its_state_is_plain_and_loads():
    params, gradients = weights_and_gradients()
    drawn = [next(gradients) for _ in range(4)]
    whole = Lars(params, trust_coefficient=TRUST)
    take_steps(whole, params, iter(drawn[:2]), [1.0, 2.0])
    copies = [nn.Parameter(p.detach().clone()) for p in params]
    again = Lars(copies, trust_coefficient=0.5)
    again.load_state_dict(copy.deepcopy(whole.state_dict()))
    take_steps(whole, params, iter(drawn[2:]), [3.0, 4.0])
    take_steps(again, copies, iter(drawn[2:]), [3.0, 4.0])
    for a, b in zip(params, copies, strict=True):
        assert torch.equal(a, b)
