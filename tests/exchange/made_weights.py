"""Random weights and images that tell two computations apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALL: dict[str, object] = {
    "data.image_size": 32,
    "training.threads": 1,
    "training.precision": "fp32",
}
"""Settings of a recipe for images of 32 px, exact and on one thread."""


def images(size: int, count: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(count, 3, size, size, generator=generator)


def stir(model: nn.Module) -> nn.Module:
    """Random BN statistics and scales, so that no mix-up of them goes unnoticed; in eval mode."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.8, 1.2, generator=generator)
            if module.affine:
                nn.init.uniform_(module.weight, 0.8, 1.2, generator=generator)
                nn.init.normal_(module.bias, 0, 0.1, generator=generator)
    return model.eval()
