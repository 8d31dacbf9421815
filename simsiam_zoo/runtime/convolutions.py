"""Convolutions on the CPU that are computed as a product, and those that bf16 gets wrong.

**One output.** In the last stages of a network on small images a padded kernel has room for one
output: a 3x3 convolution of a 1x1 image multiplies it by the kernel's centre, and its other taps
see padding alone. oneDNN without AVX-512 computes the weight gradient of such a layer image by
image; as a product over the whole batch it is the same sum, and a training step of `mnist-5k` gives
1.9 times the images/s (two cores of an AMD EPYC with AVX2, `benchmarks/step.py products`).

**bf16.** Where the padding is wider than the image that is left, as in the same stages, some taps
of the kernel only ever see padding. Their gradient is zero; oneDNN's bf16 kernels leave whatever
was in that memory before (measured with torch 2.14.1 on a CPU with AVX512-BF16: 3x3 with stride 2
and 5x5 kernels on 1x1 inputs, 7x7 on 2x2; not 3x3 with stride 1 on 1x1). Mostly that is a small
number, sometimes it is not finite, and always it is wrong.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Span = tuple[int, int]


class OneOutputConv2d(nn.Conv2d):
    """A convolution like any other, and a matrix product for images where it has one output."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] → [N, out_channels, H', W']."""
        seen = self.one_output(*input.shape[-2:]) if input.dim() == 4 else None
        if seen is None:
            return super().forward(input)
        (taps_y, pixels_y), (taps_x, pixels_x) = seen
        image = input[:, :, slice(*pixels_y), slice(*pixels_x)]
        weight = self.weight[:, :, slice(*taps_y), slice(*taps_x)]
        return F.linear(image.flatten(1), weight.flatten(1), self.bias)[:, :, None, None]

    def one_output(self, height: int, width: int) -> tuple[tuple[Span, Span], ...] | None:
        """By direction, the taps that see pixels and the pixels that they see.

        None: there are more outputs, or the taps see padding alone or not one piece.
        """
        spans = []
        for direction, size in enumerate((height, width)):
            kernel, stride = self.kernel_size[direction], self.stride[direction]
            padding, step = self.padding[direction], self.dilation[direction]
            assert isinstance(padding, int)
            one = (size + 2 * padding - step * (kernel - 1) - 1) // stride == 0
            taps = [tap for tap in range(kernel) if 0 <= tap * step - padding < size]
            if not one or not taps or (step > 1 and len(taps) > 1):
                return None
            first, last = taps[0] * step - padding, taps[-1] * step - padding
            spans.append(((taps[0], taps[-1] + 1), (first, last + 1)))
        return tuple(spans)


def as_products(network: nn.Module) -> None:
    """Let the plain convolutions of `network` be matrix products where they have one output.

    Only their class changes, so that names, weights, copies and pickles are as ever.
    """
    for conv in network.modules():
        if type(conv) is not nn.Conv2d or isinstance(conv.padding, str):
            continue
        if conv.groups == 1 and conv.padding_mode == "zeros" and max(conv.kernel_size) > 1:
            conv.__class__ = OneOutputConv2d


def untrustworthy_convolutions(network: nn.Module, *sizes: int, channels: int = 3) -> list[str]:
    """The modules' names in `network`, which takes images [N, channels, size, size], with their
    inputs' sizes."""
    found: list[str] = []
    probe = copy.deepcopy(network).eval()
    names = {module: name for name, module in probe.named_modules()}

    def check(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(module, nn.Conv2d)
        height, width = inputs[0].shape[-2:]
        if isinstance(module, OneOutputConv2d) and module.one_output(height, width):
            return
        if isinstance(module.padding, str):  # "same" and "valid": no network here pads so
            return
        (pad_y, pad_x), strided = module.padding, max(module.stride) > 1
        narrower = height < pad_y or width < pad_x
        if narrower or (strided and 0 < height <= pad_y and 0 < width <= pad_x):
            found.append(f"{names[module]} on {height}x{width}")

    for module in names:
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(check)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for size in sizes:
            x = torch.zeros(1, channels, size, size)
            probe(next((x.to(parameter) for parameter in probe.parameters()), x))
    return list(dict.fromkeys(found))
