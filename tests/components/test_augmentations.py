"""What is drawn, against torchvision's own draws: distributions by two-sample tests."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import ColorJitter, RandomResizedCrop

from simsiam_zoo.catalog.component import Component
from simsiam_zoo.components.augmentations import (
    DigitsAugmentation,
    SimSiamAugmentation,
    cifar_augmentation,
    random_resized_box,
)
from simsiam_zoo.components.plugin import zoo_components

DRAWS = 3000
LEAST_P = 1e-4  # seeds are fixed: a test that passes once passes always


def defaults(name: str) -> dict[str, object]:
    component = next(
        c
        for c in zoo_components()
        if isinstance(c, Component) and (c.kind, c.name) == ("augmentation", name)
    )
    return {param.name: param.default for param in component.params}


@pytest.mark.parametrize(
    ("size", "min_scale"), [((375, 500), 0.2), ((28, 28), 0.4), ((8, 8), 0.4), ((300, 90), 0.8)]
)
def test_crops_are_drawn_as_torchvision_draws_them(size, min_scale):
    generator = np.random.default_rng(0)
    torch.manual_seed(0)
    image = torch.empty(3, *size)
    ours, theirs = [], []
    for _ in range(DRAWS):
        left, top, right, bottom = random_resized_box(generator, size, min_scale)
        assert 0 <= left < right <= size[1]
        assert 0 <= top < bottom <= size[0]
        ours.append((left, top, right - left, bottom - top))
        y, x, h, w = RandomResizedCrop.get_params(image, (min_scale, 1.0), (3 / 4, 4 / 3))
        theirs.append((x, y, w, h))
    a, b = np.array(ours, float), np.array(theirs, float)
    for mine, its in zip(
        (*a.T, a[:, 2] * a[:, 3], a[:, 2] / a[:, 3]),
        (*b.T, b[:, 2] * b[:, 3], b[:, 2] / b[:, 3]),
        strict=True,
    ):
        assert stats.ks_2samp(mine, its).pvalue > LEAST_P


@pytest.mark.parametrize("size", [(10, 1000), (1000, 10)])
def test_an_image_too_long_for_any_crop_gives_its_middle_as_torchvision_does(size):
    box = random_resized_box(np.random.default_rng(0), size, min_scale=0.9)
    y, x, h, w = RandomResizedCrop.get_params(torch.empty(3, *size), (0.9, 1.0), (3 / 4, 4 / 3))
    assert box == (x, y, x + w, y + h)


def test_color_jitter_is_drawn_as_torchvision_draws_it():
    settings = defaults("simsiam")
    augmentation = SimSiamAugmentation(**settings)
    generator = np.random.default_rng(0)
    views = [augmentation.sample(generator, 0, (100, 100)) for _ in range(DRAWS)]
    jittered = [view.jitter for view in views if view.jitter]
    jitter = ColorJitter(0.4, 0.4, 0.4, 0.1)
    torch.manual_seed(0)
    names = ("brightness", "contrast", "saturation", "hue")
    drawn = [
        ColorJitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        for _ in range(len(jittered))
    ]
    for k, name in enumerate(names):
        ours = [dict(operations)[name] for operations in jittered]
        assert stats.ks_2samp(ours, [d[1 + k] for d in drawn]).pvalue > LEAST_P
    orders = [tuple(name for name, _ in operations) for operations in jittered]
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > LEAST_P


def test_each_operation_comes_as_often_as_it_should():
    augmentation = SimSiamAugmentation(**defaults("simsiam"))
    generator = np.random.default_rng(1)
    views = [augmentation.sample(generator, 0, (64, 64)) for _ in range(DRAWS)]
    events = np.array([[bool(v.jitter), v.gray, bool(v.blur), v.flip] for v in views])
    shares = (0.8, 0.2, 0.5, 0.5)
    for share, count in zip(shares, events.sum(axis=0), strict=True):
        assert stats.binomtest(int(count), DRAWS, share).pvalue > LEAST_P
    assert np.abs(np.corrcoef(events.T) - np.eye(4)).max() < 0.07  # independent of each other
    sigmas = [view.blur for view in views if view.blur]
    assert stats.kstest(sigmas, stats.uniform(0.1, 1.9).cdf).pvalue > LEAST_P


def test_strengths_of_zero_leave_their_operation_out():
    still = dict.fromkeys(defaults("simsiam"), 0.0) | {"min_scale": 1.0, "jitter_p": 1.0}
    view = SimSiamAugmentation(**still).sample(np.random.default_rng(0), 0, (30, 30))
    assert (view.jitter, view.gray, view.blur, view.flip) == ((), False, 0.0, False)


def test_cifar_is_the_same_without_blur():
    settings = defaults("cifar")
    assert "blur_p" not in settings
    generators = np.random.default_rng(2), np.random.default_rng(2)
    cifar = cifar_augmentation(**settings)
    unblurred = SimSiamAugmentation(**settings, blur_p=0.0)
    for _ in range(200):
        view = cifar.sample(generators[0], 1, (32, 32))
        assert view.blur == 0.0
        assert view == unblurred.sample(generators[1], 1, (32, 32))


def test_digits_are_turned_and_sheared_and_never_mirrored():
    settings = defaults("digits")
    augmentation = DigitsAugmentation(**settings)
    generator = np.random.default_rng(3)
    views = [augmentation.sample(generator, 0, (28, 28)) for _ in range(DRAWS)]
    assert not any(view.flip or view.gray or view.blur for view in views)
    assert {tuple(name for name, _ in view.jitter) for view in views} == {
        ("brightness", "contrast")
    }
    for values, middle, reach in (
        ([view.rotation for view in views], 0, settings["rotation"]),
        ([view.shear for view in views], 0, settings["shear"]),
        ([view.jitter[0][1] for view in views], 1, settings["brightness"]),
        ([view.jitter[1][1] for view in views], 1, settings["contrast"]),
    ):
        uniform = stats.uniform(middle - reach, 2 * reach)
        assert stats.kstest(values, uniform.cdf).pvalue > LEAST_P
