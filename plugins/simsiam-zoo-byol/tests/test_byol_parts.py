"""BYOL's heads and augmentation against what the paper says of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from simsiam_zoo.plugin import SimSiamAugmentation, ViewParams, create_component, render_view
from simsiam_zoo_byol.augmentation import ByolAugmentation
from simsiam_zoo_byol.heads import ByolProjector

DRAWS = 3000


def views(augmentation: ByolAugmentation, view: int, seed: int = 0) -> list[ViewParams]:
    generator = np.random.default_rng(seed)
    return [augmentation.sample(generator, view, (64, 48)) for _ in range(DRAWS)]


def test_heads_have_the_papers_sizes_and_no_norm_on_the_output() -> None:
    with torch.device("meta"):
        projector, predictor = (
            create_component("projector", "byol", in_dim=2048),
            create_component("predictor", "byol", dim=256),
        )
    assert projector.out_dim == 256
    # 2048·4096 + BN's 2·4096 + 4096·256, and 256·4096 + 2·4096 + 4096·256: 9.4 M and 2.1 M
    assert sum(p.numel() for p in projector.parameters()) == 9_445_376
    assert sum(p.numel() for p in predictor.parameters()) == 2_105_344
    for head in (projector, predictor):
        assert [type(layer) for layer in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]


def test_a_head_is_its_formula() -> None:
    torch.manual_seed(0)
    head = ByolProjector(in_dim=5, hidden_dim=7, out_dim=3).double()
    y = torch.randn(9, 5, dtype=torch.float64)
    first, last = head[0].weight.detach().numpy(), head[3].weight.detach().numpy()
    hidden = y.numpy() @ first.T
    hidden = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-5)
    expected = np.maximum(hidden, 0) @ last.T
    np.testing.assert_allclose(head(y).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("view", "blurred", "solarised"), [(0, 1.0, 0.0), (1, 0.1, 0.2)])
def test_blur_and_solarisation_differ_between_the_views(
    view: int, blurred: float, solarised: float
) -> None:
    drawn = views(create_component("augmentation", "byol"), view)
    for share, found in (
        (blurred, np.mean([each.blur > 0 for each in drawn])),
        (solarised, np.mean([each.solarize is not None for each in drawn])),
    ):
        assert abs(found - share) <= 4 * np.sqrt(share * (1 - share) / DRAWS)
    sigmas = [each.blur for each in drawn if each.blur]
    assert 0.1 <= min(sigmas) < 0.2
    assert 1.9 < max(sigmas) <= 2.0
    # a second pair is drawn as the first
    assert views(create_component("augmentation", "byol"), view + 2) == drawn


def test_shares_are_parameters() -> None:
    settings = {"blur_p1": 0.0, "blur_p2": 1.0, "solarize_p1": 1.0, "solarize_p2": 0.0}
    first, second = (
        views(create_component("augmentation", "byol", **settings), view) for view in (0, 1)
    )
    assert not any(each.blur for each in first)
    assert all(each.blur for each in second)
    assert all(each.solarize is not None for each in first)
    assert not any(each.solarize is not None for each in second)


def test_all_else_is_drawn_as_simsiam_draws_it() -> None:
    strengths = {
        "min_scale": 0.08,
        "brightness": 0.4,
        "contrast": 0.4,
        "saturation": 0.2,
        "hue": 0.1,
    }
    shares = {"jitter_p": 0.8, "gray_p": 0.2, "flip_p": 0.5}
    simsiam = SimSiamAugmentation(**strengths, **shares, blur_p=1.0, interpolation="bicubic")
    torchvisions = create_component("augmentation", "byol", brightness_offset=False)
    for seed in range(50):
        byol = torchvisions.sample(np.random.default_rng(seed), 1, (64, 48))
        other = simsiam.sample(np.random.default_rng(seed), 1, (64, 48))
        same = ("box", "flip", "jitter", "gray", "rotation", "shear", "bicubic")
        assert [getattr(byol, key) for key in same] == [getattr(other, key) for key in same]
        assert byol.blur in (0.0, other.blur)


def test_brightness_is_added_evenly_on_both_sides_of_none() -> None:
    drawn = views(create_component("augmentation", "byol"), 0)
    offsets = np.array([dict(each.jitter)["offset"] for each in drawn if each.jitter])
    assert abs(len(offsets) / DRAWS - 0.8) < 0.03
    assert -0.4 <= offsets.min() < -0.39
    assert 0.39 < offsets.max() <= 0.4
    assert abs(offsets.mean()) < 4 * 0.4 / np.sqrt(3 * len(offsets))
    assert not any("brightness" in dict(each.jitter) for each in drawn)


def test_solarisation_inverts_the_bright_half() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    drawn = next(
        v
        for v in views(create_component("augmentation", "byol", solarize_p1=1.0), 0)
        if v.solarize is not None
    )
    plain = ViewParams(box=(0, 0, 16, 16), solarize=drawn.solarize)
    x = levels / 255
    expected = np.where(x < 0.5, x, 1 - x)  # the paper's x · 1[x < 0.5] + (1 - x) · 1[x >= 0.5]
    np.testing.assert_allclose(render_view(levels, plain, 16) / 255, expected, atol=1e-12)
