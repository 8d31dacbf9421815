"""bf16 against fp32: the same steps in both, side by side."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from simsiam_zoo.catalog import create_component
from simsiam_zoo.model.heads import mlp
from simsiam_zoo.model.losses import CosineLoss
from simsiam_zoo.model.siamese import Siamese
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.device import Runtime
from simsiam_zoo.training.batches import to_device, train_loader
from simsiam_zoo.training.setup import prepare

STEPS = 100
MEAN_TOLERANCE, TEN_TOLERANCE = 0.05, 0.15
"""Between the losses, which go from 0 to -0.4 here: of their means over all steps, and over any ten
in a row. Measured with two seeds: up to 0.03 and 0.11."""


def small_network() -> Siamese:
    """All that the real ones have: strided convolutions, BN, the paper's heads."""
    torch.manual_seed(0)
    backbone = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )
    projector = nn.Sequential(*mlp([32, 64, 64], "all", output_affine=False))
    predictor = nn.Sequential(*mlp([64, 16, 64], "hidden"))
    return Siamese(
        backbone,
        projector,
        predictor,
        create_component("gradient", "stop-gradient"),
        CosineLoss(),
        in_dim=32,
        dim=64,
    ).to(memory_format=torch.channels_last)


def losses(recipe: Recipe, precision: str) -> torch.Tensor:
    """Of the first hundred steps, [STEPS] float32."""
    setup, runtime = prepare(recipe), Runtime(torch.device("cpu"), precision, 1)
    network = small_network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, fused=True)
    found = []
    for loaded, _ in zip(train_loader(setup), range(STEPS), strict=False):
        with runtime.autocast():
            loss = network(to_device(setup, loaded))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.detach())
    return torch.stack(found)


def test_bfloat16_and_float32_stay_together_over_a_hundred_steps(
    tiny: Callable[..., Recipe],
) -> None:
    recipe = tiny({"data.image_size": 16, "training.batch_size": 32, "training.epochs": 34})
    with torch.random.fork_rng(devices=[]):
        full, half = losses(recipe, "fp32"), losses(recipe, "bf16")
    assert not torch.equal(full, half)  # else both had been the same arithmetic
    assert full[-10:].mean() < full[:10].mean() - 0.3  # they learn: a tolerance means something
    assert half.mean().item() == pytest.approx(full.mean().item(), abs=MEAN_TOLERANCE)
    of_ten = nn.functional.avg_pool1d(torch.stack([full, half])[:, None], 10, 1)  # [2, 1, 91]
    assert (of_ten[0] - of_ten[1]).abs().max() < TEN_TOLERANCE
