"""The augmentation: how many views of which sizes, and how much of an image they show."""

from __future__ import annotations

import numpy as np
import pytest

from simsiam_zoo.plugin import InputError, create_component


def test_the_default_is_swavs_at_224_and_its_ratio_elsewhere() -> None:
    multi_crop = create_component("augmentation", "multi-crop")
    assert multi_crop.view_sizes(224) == [224] * 2 + [96] * 6
    assert multi_crop.view_sizes(32) == [32] * 2 + [14] * 6
    at_32 = create_component("augmentation", "multi-crop:large=3,small=4,small_size=16")
    assert at_32.view_sizes(32) == [32] * 3 + [16] * 4


def test_views_show_their_share_of_the_image() -> None:
    multi_crop, rng = create_component("augmentation", "multi-crop"), np.random.default_rng(0)
    shares = {True: [], False: []}
    for _ in range(2000):
        for view in (0, 1, 2, 7):
            left, top, right, bottom = multi_crop.sample(rng, view, (400, 500)).box
            shares[view < 2].append((right - left) * (bottom - top) / 200_000)
    for large, low, high in ((True, 0.14, 1.0), (False, 0.05, 0.14)):
        found = np.array(shares[large])
        assert low - 0.002 < found.min() < found.max() < high + 0.002
    assert abs(np.median(shares[False]) - 0.095) < 0.002  # uniform: none of them misses


def test_all_but_the_crop_is_the_bases() -> None:
    """The base draws after the box is drawn, from the same generator."""
    ours = create_component("augmentation", "multi-crop", base="cifar:hue=0.2,flip_p=1")
    base = create_component("augmentation", "cifar", hue=0.2, flip_p=1.0)
    rng = np.random.default_rng(3)
    drawn = [ours.sample(rng, view, (32, 32)) for view in range(8)]
    assert all(view.flip and not view.blur for view in drawn)
    amounts = [amount for view in drawn for name, amount in view.jitter if name == "hue"]
    assert amounts
    assert max(map(abs, amounts)) > 0.1  # the default's most
    assert type(ours.base) is type(base)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("multi-crop:min_scale=0.5", "not in this order"),
        ("multi-crop:small_size=32", "no smaller than large"),
        ("multi-crop:base=nothing", "nothing"),
        ("multi-crop:base=digits:rotatoin=3", "rotatoin"),
    ],
)
def test_what_is_wrong_is_said(spec: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        create_component("augmentation", spec).view_sizes(32)
