"""Projectors and predictors against closed forms, and all parts against their descriptors."""

import math

import pytest
import torch
from torch import nn

from simsiam_zoo.catalog import create_component
from simsiam_zoo.errors import InputError
from simsiam_zoo.model.heads import (
    LinearPredictor,
    MlpPredictor,
    MlpProjector,
    NoPredictor,
    NoProjector,
)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("norm", "affine", "expected"),
    [  # 7 → 5 → 5 → 3; a BN has a scale and a shift, a fc without BN has a bias
        ("all", False, 35 + 25 + 15 + 2 * (5 + 5)),
        ("all", True, 35 + 25 + 15 + 2 * (5 + 5 + 3)),
        ("hidden", False, 35 + 25 + 15 + 2 * (5 + 5) + 3),
        ("none", False, 35 + 25 + 15 + (5 + 5 + 3)),
    ],
)
def test_where_the_projector_has_bn_and_bias(norm: str, affine: bool, expected: int) -> None:
    torch.manual_seed(0)
    projector = MlpProjector(
        in_dim=7, layers=3, hidden_dim=5, out_dim=3, norm=norm, output_affine=affine
    ).double()
    assert count(projector) == expected
    assert projector.out_dim == 3
    z = projector(torch.randn(64, 7, dtype=torch.float64) + 2)
    standard = torch.allclose(z.mean(0), torch.zeros_like(z[0]), atol=1e-9)
    assert standard == (norm == "all")  # per channel over the batch, at the initial scale of 1


def test_layers_counts_fc_layers() -> None:
    for layers in (1, 2, 5):
        projector = create_component(
            "projector", "mlp", in_dim=7, layers=layers, hidden_dim=5, out_dim=3
        )
        assert sum(isinstance(module, nn.Linear) for module in projector) == layers
        assert sum(isinstance(module, nn.ReLU) for module in projector) == layers - 1
        assert projector(torch.randn(4, 7)).shape == (4, 3)


def test_fc_layers_start_uniform_within_one_over_root_of_inputs() -> None:
    torch.manual_seed(0)
    for layer in (
        *create_component("projector", "mlp", in_dim=512),
        *create_component("predictor", "mlp", dim=512),
    ):
        if isinstance(layer, nn.Linear):
            bound = 1 / math.sqrt(layer.in_features)
            assert layer.weight.abs().max() <= bound
            torch.testing.assert_close(
                layer.weight.std().item(), bound / math.sqrt(3), rtol=0.02, atol=0
            )


def test_values_without_an_effect_or_a_meaning_are_refused() -> None:
    with pytest.raises(InputError, match="output_affine"):
        create_component("projector", "mlp", in_dim=7, norm="hidden", output_affine=True)
    with pytest.raises(InputError, match="norm of predictor mlp is one of all, hidden, none"):
        create_component("predictor", "mlp", dim=8, norm="some")


@pytest.mark.parametrize(
    ("norm", "expected"),
    [  # 8 → 2 → 8
        ("hidden", 16 + 4 + 16 + 8),
        ("all", 16 + 4 + 16 + 16),
        ("none", 16 + 2 + 16 + 8),
    ],
)
def test_where_the_predictor_has_bn_and_bias(norm: str, expected: int) -> None:
    assert count(create_component("predictor", "mlp", dim=8, norm=norm)) == expected
    assert count(MlpPredictor(dim=8, hidden_dim=2, norm=norm)) == expected  # dim / 4 by default
    assert create_component("predictor", "mlp", dim=3, norm=norm)(torch.randn(4, 3)).shape == (4, 3)


def test_linear_and_none() -> None:
    assert count(create_component("predictor", "linear", dim=8)) == 72
    assert count(LinearPredictor(dim=8, bias=False)) == 64
    z = torch.randn(4, 8)
    assert NoPredictor()(z) is z
    assert NoProjector(in_dim=8)(z) is z
    assert NoProjector(in_dim=8).out_dim == 8


def test_the_fixed_random_predictor_never_changes_and_still_normalises_by_the_batch() -> None:
    torch.manual_seed(0)
    encoder, h = (
        nn.Linear(6, 8).double(),
        create_component("predictor", "fixed-random", dim=8).double(),
    )
    before = [parameter.clone() for parameter in h.parameters()]
    optimizer = torch.optim.SGD(
        [*encoder.parameters(), *h.parameters()], lr=1.0, momentum=0.9, weight_decay=0.1
    )
    moved = encoder.weight.clone()
    for _ in range(2):
        h(encoder(torch.randn(16, 6, dtype=torch.float64))).square().sum().backward()
        optimizer.step()
    assert all(map(torch.equal, before, h.parameters()))
    assert not torch.equal(moved, encoder.weight)  # gradient passes through it all the same

    z = torch.randn(16, 8, dtype=torch.float64)
    torch.testing.assert_close(h(1e3 * z + 5), h(1e3 * z))  # a shift of the batch is taken out
