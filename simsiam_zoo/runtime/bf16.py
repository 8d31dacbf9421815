"""Convolutions whose bf16 weight gradient cannot be trusted on the CPU.

Where the padding is wider than the image that is left, as in the last stages of a network on small
images, some taps of the kernel only ever see padding. Their gradient is zero; oneDNN's bf16 kernels
leave whatever was in that memory before (measured with torch 2.14.1 on a CPU with AVX512-BF16: 3x3
with stride 2 and 5x5 kernels on 1x1 inputs, 7x7 on 2x2; not 3x3 with stride 1 on 1x1). Mostly that
is a small number, sometimes it is not finite, and always it is wrong.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from simsiam_zoo.runtime.one_output_conv import OneOutputConv2d


def untrustworthy_convolutions(network: nn.Module, image_size: int) -> list[str]:
    """What `network` has of them at this image size: the modules' names, with their inputs' sizes.

    Args:
        network: takes [N, 3, image_size, image_size]; it is left as it was found.
        image_size: in pixels.
    """
    found: list[str] = []
    names = {module: name for name, module in network.named_modules()}

    def check(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(module, nn.Conv2d)
        height, width = inputs[0].shape[-2:]
        product = isinstance(module, OneOutputConv2d) and module.one_output(height, width)
        if not product and _sees_too_little(module, height, width):
            found.append(f"{names[module]} on {height}x{width}")

    hooks = [
        module.register_forward_pre_hook(check) for module in names if isinstance(module, nn.Conv2d)
    ]
    training = [(module, module.training) for module in names]
    parameter = next(network.parameters(), None)
    x: Tensor = torch.zeros(1, 3, image_size, image_size)
    try:
        network.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            network(x if parameter is None else x.to(parameter))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in training:
            module.training = mode
    return list(dict.fromkeys(found))


def _sees_too_little(conv: nn.Conv2d, height: int, width: int) -> bool:
    if isinstance(conv.padding, str):  # "same" and "valid": no network here pads so
        return False
    (pad_y, pad_x), strided = conv.padding, max(conv.stride) > 1
    narrower = height < pad_y or width < pad_x
    return narrower or (strided and 0 < height <= pad_y and 0 < width <= pad_x)
