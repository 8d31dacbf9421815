"""Loss scaling, on the CPU: torch's scaler runs there too."""

from __future__ import annotations

import pytest
import torch

from simsiam_zoo.training.optimizer import scaled_step


def one_weight(fused: bool = True) -> tuple[torch.nn.Parameter, torch.optim.SGD]:
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    return weight, torch.optim.SGD([weight], lr=0.5, fused=fused)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("ask", [True, False])
def test_a_scaled_step_is_the_plain_step(fused: bool, ask: bool) -> None:
    weight, optimizer = one_weight(fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(3 * weight.sum()).backward()
    assert weight.grad.item() == 3 * 1024
    assert scaled_step(scaler, optimizer, ask)
    assert weight.item() == 1.0 - 0.5 * 3


@pytest.mark.parametrize("fused", [True, False])
def test_an_overflow_takes_no_step_halves_the_scale_and_is_told(fused: bool) -> None:
    weight, optimizer = one_weight(fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    taken = []
    for slope in (float("inf"), 1e38, 1.0):  # 1e38 is finite, and 512 times it is not
        optimizer.zero_grad()
        scaler.scale(slope * weight.sum()).backward()
        taken.append(scaled_step(scaler, optimizer))
        if not taken[-1]:
            assert weight.item() == 1.0
    assert taken == [False, False, True]
    assert scaler.get_scale() == 256.0
    assert weight.item() == 0.5


def test_a_scale_that_grows_is_no_overflow() -> None:
    weight, optimizer = one_weight()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=1)
    scaler.scale(weight.sum()).backward()
    assert scaled_step(scaler, optimizer)
    assert scaler.get_scale() == 4.0


def test_without_scaling_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the scale would wait for the device in every step."""
    weight, optimizer = one_weight()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    monkeypatch.setattr(scaler, "get_scale", None)
    scaler.scale(3 * weight.sum()).backward()
    assert scaled_step(scaler, optimizer)
    assert weight.item() == 1.0 - 0.5 * 3
