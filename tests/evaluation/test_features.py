from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from simsiam_zoo.evaluation.frozen_pass import RawPixels, frozen
from simsiam_zoo.evaluation.protocol import (
    Features,
    FeatureSplits,
    NetworkImages,
    grey_once,
    number_classes,
)
from simsiam_zoo.runtime.device import Runtime

FP32 = Runtime(torch.device("cpu"), "fp32", 1)
BF16 = Runtime(torch.device("cpu"), "bf16", 1)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(0.5)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def snapshot(module: nn.Module) -> tuple[dict[str, bool], dict[str, torch.Tensor]]:
    modes = {name: child.training for name, child in module.named_modules()}
    return modes, {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("training", [True, False])
def test_a_frozen_look_leaves_a_network_as_it_was(training):
    net = network().train(training)
    net[2].train(False)  # somebody keeps the statistics of this one fixed
    net[1].momentum = 1.0  # a single pass in training mode would show
    modes, state = snapshot(net)
    generator = torch.get_rng_state()
    view = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))

    first, second = frozen(net, FP32, view), frozen(net, FP32, view)

    assert torch.equal(first, second)  # no dropout
    assert not first.requires_grad
    one_by_one = torch.cat([frozen(net, FP32, image[None]) for image in view])
    torch.testing.assert_close(one_by_one, first)  # no batch statistics
    modes_after, state_after = snapshot(net)
    assert modes_after == modes
    assert all(torch.equal(state_after[name], value) for name, value in state.items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_the_modes_come_back_after_an_error_too():
    net = network()
    net[1].eval()
    modes, _ = snapshot(net)
    with pytest.raises(RuntimeError):
        frozen(net, FP32, torch.zeros(2, 5, 8, 8))
    assert snapshot(net)[0] == modes


def test_it_runs_under_the_runs_autocast():
    view = torch.randn(2, 3, 8, 8)
    first = nn.Sequential(nn.Conv2d(3, 4, 3))
    assert frozen(first, FP32, view).dtype == torch.float32
    assert frozen(first, BF16, view).dtype == torch.bfloat16


def test_raw_pixels_are_averaged_down_to_32_and_grey_ones_counted_once():
    raw_pixels = RawPixels()
    small, large = torch.rand(2, 3, 28, 28), torch.rand(2, 3, 64, 64)
    assert torch.equal(raw_pixels(small), small.reshape(2, -1))
    blocks = large.reshape(2, 3, 32, 2, 32, 2).mean(dim=(3, 5))
    torch.testing.assert_close(raw_pixels(large), blocks.reshape(2, -1))
    labels = torch.zeros(2, dtype=torch.int64)
    grey = Features(raw_pixels(small[:, :1].expand(2, 3, 28, 28)), labels)
    coloured = Features(raw_pixels(small), labels)
    (one, two) = grey_once(grey, grey)
    assert torch.equal(one.x, small[:, 0].reshape(2, -1))
    assert torch.equal(two.x, one.x)
    for split, same in zip(grey_once(grey, coloured), (grey, coloured), strict=True):
        assert split is same  # both or none: their widths stay equal


def test_labels_of_a_catalogue_are_numbered_without_gaps_and_names_keep_them():
    def split(*labels: int) -> Features:
        return Features(torch.zeros(len(labels), 2), torch.tensor(labels))

    def augmented(epoch: int, batch: int) -> Iterator[Features]:
        yield split(90_000, 7)

    def train(*_: float) -> Iterator[Iterator[tuple[torch.Tensor, torch.Tensor]]]:
        yield iter([(torch.zeros(2, 3, 1, 1), torch.tensor([90_000, 7]))])

    images = NetworkImages(nn.Identity, (3, 1, 1), 3, train, lambda: iter(()), FP32)
    given = FeatureSplits(split(7, 90_000, 7), split(7, 500), 0, augmented, images=images)
    found, labels = number_classes(given, None)
    assert (found.classes, labels) == (3, [7, 500, 90_000])
    assert found.train.labels.tolist() == [0, 2, 0]
    assert found.test.labels.tolist() == [0, 1]
    assert found.augmented is not None
    assert [each.labels.tolist() for each in found.augmented(0, 2)] == [[2, 0]]
    assert found.images is not None
    batches = [list(parts) for parts in found.images.train(0, 2, 0.08, 0.5)]
    assert [labels.tolist() for ((_, labels),) in batches] == [[2, 0]]
    plain, labels = number_classes(FeatureSplits(split(0, 2, 1), split(1), 0), None)
    assert (plain.classes, labels) == (3, None)
    named, labels = number_classes(FeatureSplits(split(0, 2), split(2), 0), ("a", "b", "c", "d"))
    assert (named.classes, labels, named.train.labels.tolist()) == (4, None, [0, 2])


HOLDS_ALL = """
import tempfile
from pathlib import Path
import numpy as np, torch
from simsiam_zoo.evaluation.store import CachedFeatures, fill

def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

def rows():
    for start in range(0, 30_720, 128):
        x = torch.randn(128, 1024)
        ids = np.arange(start, start + 128)
        yield ids, [x * 1.0, x * 0.5, x * 2.0], torch.from_numpy(ids) % 10

with tempfile.TemporaryDirectory() as folder:
    entries = [CachedFeatures(Path(folder), {"of": name}) for name in "abc"]
    before = held()
    fill(entries, np.arange(30_720), [1024] * 3, rows())
    print(held() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="Linux tells what is held")
def test_what_is_on_disk_is_not_held_in_memory_as_well():
    """126 MB by each of three networks; batches of half a MB."""
    command = [sys.executable, "-c", HOLDS_ALL]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert float(told) < 40  # MB
