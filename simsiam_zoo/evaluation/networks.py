"""Frozen networks: what is looked at and not changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simsiam_zoo.errors import PluginError
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.device import Runtime

RAW_SIDE = 32
"""Raw pixels are compared at this side at most: nobody's baseline should need 150,000 channels."""

Encoder = Callable[[Tensor], Tensor]
"""Normalised views [N, 3, S, S] on the runtime's device → [N, D]."""


@dataclass(frozen=True)
class FrozenNetwork:
    """A network that is looked at and not changed.

    Args:
        name: the component, with its parameters: what the weights are weights of.
        module: [N, 3, S, S] → [N, D], on the runtime's device.
    """

    name: str
    module: nn.Module


class RawPixels(nn.Module):
    """The pixels themselves [N, 3, H, W] as features [N, 3 P], `RAW_SIDE` wide at most."""

    def forward(self, view: Tensor) -> Tensor:
        """No weights, so its digest is that of nothing."""
        if view.shape[-1] > RAW_SIDE:
            view = F.adaptive_avg_pool2d(view.float(), RAW_SIDE)
        return view.flatten(1)


def frozen(network: nn.Module, runtime: Runtime) -> Encoder:
    """`network` as an encoder: eval mode, no gradient, under the run's autocast.

    The mode that each module was in comes back after every call, so that a network can be looked
    at in the middle of its training.

    Args:
        network: what is frozen.
        runtime: gives the autocast.
    """

    @torch.no_grad()
    def encode(view: Tensor) -> Tensor:
        modes = [(module, module.training) for module in network.modules()]
        network.eval()
        try:
            with runtime.autocast():
                output: Tensor = network(view)
            return output
        finally:
            for module, training in modes:
                module.training = training

    return encode


@contextmanager
def first_ranks_buffers(*networks: nn.Module) -> Iterator[None]:
    """Inside, every rank's buffers are the first rank's, whose network is the one that is saved.

    BN statistics that are not synchronised differ from rank to rank.
    """
    if not distributed.is_distributed():
        yield
        return
    buffers = [buffer for network in networks for buffer in network.buffers()]
    own = [buffer.clone() for buffer in buffers]
    stated = distributed.from_main(lambda: [buffer.cpu() for buffer in buffers])
    set_buffers(stated, buffers)
    try:
        yield
    finally:
        set_buffers(own, buffers)


@torch.no_grad()
def set_buffers(values: Iterable[Tensor], buffers: Iterable[Tensor]) -> None:
    """Copy values into buffers, whatever device they are on."""
    for value, buffer in zip(values, buffers, strict=True):
        buffer.copy_(value)


def state_digest(network: nn.Module) -> str:
    """SHA-256 (hex) of all parameters and buffers, BN statistics among them: names, types, bytes.

    Buffers that no `state_dict` holds count as well.
    """
    digest = hashlib.sha256()
    tensors = [*network.named_parameters(), *network.named_buffers()]
    for name, value in sorted(tensors, key=lambda pair: pair[0]):
        plain = value.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def refuse_changed(network: FrozenNetwork, before: str) -> None:
    """Stop where a network is not what it was.

    Args:
        network: what was looked at.
        before: its `state_digest` before.

    Raises:
        PluginError: a parameter or a buffer is another one.
    """
    if state_digest(network.module) != before:
        raise PluginError(
            f"{network.name} changed while its features were taken, in eval mode and without"
            " gradient",
            "A module of it writes to a buffer in every forward pass; its figures mean nothing.",
        )
