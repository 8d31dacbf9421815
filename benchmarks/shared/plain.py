"""Algorithm 1 of the paper (arXiv:2011.10566), written with torch and torchvision alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50


class PlainSimSiam(nn.Module):
    """SimSiam with nothing done for speed.

    Args:
        backbone: [N, 3, H, W] → [N, width].
        width: of the backbone's features.
        layers: of the projector.
        dim: of the embeddings.
        hidden: width within the predictor.
    """

    def __init__(
        self, backbone: nn.Module, width: int, layers: int, dim: int = 2048, hidden: int = 512
    ) -> None:
        super().__init__()
        widths = [width] + [dim] * layers
        projector: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            last = i == layers - 1
            projector += [nn.Linear(inputs, outputs, bias=False)]
            projector += [nn.BatchNorm1d(outputs, affine=not last)]
            projector += [] if last else [nn.ReLU(inplace=True)]
        self.encoder = nn.Sequential(backbone, *projector)
        self.predictor = nn.Sequential(
            nn.Linear(dim, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, dim),
        )

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """The loss of two views [N, 3, H, W] each, a scalar."""
        z1, z2 = self.encoder(x1), self.encoder(x2)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        d1 = F.cosine_similarity(p1.float(), z2.detach().float(), dim=1).mean()
        d2 = F.cosine_similarity(p2.float(), z1.detach().float(), dim=1).mean()
        return -(d1 + d2) / 2


def plain_network(preset: str) -> PlainSimSiam:
    """The network of the preset `imagenet` or `cifar10`."""
    if preset == "imagenet":
        backbone, layers = resnet50(), 3
    else:
        backbone, layers = resnet18(), 2
        backbone.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
        backbone.maxpool = nn.Identity()
    width, backbone.fc = backbone.fc.in_features, nn.Identity()
    return PlainSimSiam(backbone, width, layers)


def plain_step(
    network: PlainSimSiam, x1: Tensor, x2: Tensor, bf16: bool = False
) -> Callable[[], None]:
    """A step of the network on these two views, by torch's default SGD, in fp32 or autocast."""
    sgd = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        sgd.zero_grad()
        with torch.autocast(x1.device.type, dtype=torch.bfloat16, enabled=bf16):
            loss = network(x1, x2)
        loss.backward()
        sgd.step()

    return step


def count(network: nn.Module) -> int:
    """Numbers of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())
