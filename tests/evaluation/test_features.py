from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from simsiam_zoo.evaluation.features import extract, frozen, grey_once, raw_pixels
from simsiam_zoo.model.siamese import Batch
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

    encode = frozen(net, FP32)
    first, second = encode(view), encode(view)

    assert torch.equal(first, second)  # no dropout
    assert not first.requires_grad
    one_by_one = torch.cat([encode(image[None]) for image in view])
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
        frozen(net, FP32)(torch.zeros(2, 5, 8, 8))
    assert snapshot(net)[0] == modes


def test_a_method_can_be_what_encodes_and_runs_under_the_runs_autocast():
    net = network().train()

    def halfway(view: torch.Tensor) -> torch.Tensor:
        assert not net.training
        return net[0](view)

    view = torch.randn(2, 3, 8, 8)
    assert frozen(net, FP32, halfway)(view).dtype == torch.float32
    assert frozen(net, BF16, halfway)(view).dtype == torch.bfloat16


def test_extraction_keeps_rows_and_labels_together_in_order():
    pixels = torch.rand(7, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(7)
    reads = 0

    def batches() -> Iterator[Batch]:
        nonlocal reads
        for rows in (slice(0, 3), slice(3, 6), slice(6, 7)):
            reads += 1
            yield Batch([pixels[rows]], None, labels[rows])

    split = extract(batches(), {"raw": raw_pixels, "half": lambda x: x.flatten(1).bfloat16()})
    assert reads == 3  # once for all encoders
    assert torch.equal(split.of("raw").x, pixels.flatten(1))
    assert torch.equal(split.of("raw").labels, labels)
    assert split.of("half").x.dtype == torch.float32


def test_raw_pixels_are_averaged_down_to_32_and_grey_ones_counted_once():
    small, large = torch.rand(2, 3, 28, 28), torch.rand(2, 3, 64, 64)
    assert torch.equal(raw_pixels(small), small.reshape(2, -1))
    blocks = large.reshape(2, 3, 32, 2, 32, 2).mean(dim=(3, 5))
    torch.testing.assert_close(raw_pixels(large), blocks.reshape(2, -1))
    grey = small[:, :1].expand(2, 3, 28, 28)
    assert torch.equal(grey_once(raw_pixels(grey)), small[:, 0].reshape(2, -1))
    assert torch.equal(grey_once(raw_pixels(small)), raw_pixels(small))
