"""One pass of frozen networks over images: each image is decoded once for all of them.

Images go in batches of fixed places, so that the same network, images and arithmetic give the same
features whatever the number of processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simsiam_zoo.data.loader import EvalLoader, normalize_pixels
from simsiam_zoo.data.processes import default_workers
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.errors import InputError, PluginError
from simsiam_zoo.evaluation.protocol import Features
from simsiam_zoo.evaluation.store import CachedFeatures, Ids, Rows, fill
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.device import Runtime
from simsiam_zoo.runtime.progress import Progress

BATCH = 256
"""Images at once, of each process, where nobody says otherwise."""

FEW = 2048
"""Images of a process up to which starting loader workers takes longer than they save."""

RAW_SIDE = 32
"""Raw pixels are compared at this side at most: nobody's baseline should need 150,000 channels."""


@dataclass(frozen=True)
class Transform:
    """How an image becomes what the network sees: the centre, resized and normalised.

    `image_size` is the side in pixels; `crop` the share of the resized short side that is kept
    (0.875 is 224 of 256); `mean` and `std` are of each channel, for pixels in 0..1.
    """

    image_size: int
    crop: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """That of a run's evaluation."""
        data = recipe.data
        return cls(data.image_size, recipe.evaluation.crop, data.mean, data.std)

    def describe(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {name: list(x) if isinstance(x, tuple) else x for name, x in asdict(self).items()}


@dataclass(frozen=True)
class FrozenNetwork:
    """A network that is looked at and not changed: [N, C, S, S] → [N, D], on the runtime's device.

    `name` is the component with its parameters: what the weights are weights of.
    """

    name: str
    module: nn.Module


class RawPixels(nn.Module):
    """The pixels themselves [N, C, H, W] as features [N, C P], `RAW_SIDE` wide at most."""

    def forward(self, view: Tensor) -> Tensor:
        """No weights, so its digest is that of nothing."""
        if view.shape[-1] > RAW_SIDE:
            view = F.adaptive_avg_pool2d(view.float(), RAW_SIDE)
        return view.flatten(1)


@torch.no_grad()
def frozen(network: nn.Module, runtime: Runtime, view: Tensor) -> Tensor:
    """What `network` gives of a view, in eval mode, without gradient, under the run's autocast.

    Each module's mode comes back, so that a network can be looked at amid its training.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with runtime.autocast():
            output: Tensor = network(view)
        return output
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def first_ranks_buffers(*networks: nn.Module) -> Iterator[None]:
    """Inside, every rank's buffers (BN statistics) are the first rank's, whose network is saved."""
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
    """SHA-256 (hex) of all parameters and buffers, also of those that no `state_dict` holds."""
    digest = hashlib.sha256()
    tensors = [*network.named_parameters(), *network.named_buffers()]
    for name, value in sorted(tensors, key=lambda pair: pair[0]):
        plain = value.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def refuse_changed(network: FrozenNetwork, before: str) -> None:
    """Stop where a network has not the `state_digest` that it had before: PluginError."""
    if state_digest(network.module) != before:
        raise PluginError(
            f"{network.name} changed while its features were taken, in eval mode and without"
            " gradient",
            "A module of it writes to a buffer in every forward pass; its figures mean nothing.",
        )


@dataclass(frozen=True)
class FrozenPass:
    """Networks that are looked at and not changed, and the way of images to them.

    Features are kept in the folder `store`; with several processes one that all share. `batch`:
    images at once, of each process. `workers`: loader processes; "auto": as the machine offers.
    """

    networks: Sequence[FrozenNetwork]
    transform: Transform
    runtime: Runtime
    store: Path
    batch: int = BATCH
    workers: int | Literal["auto"] = "auto"
    progress: Progress = field(default_factory=Progress)

    def features(
        self, shards: ShardSet, what: str, *, whole: bool, ids: Ids | None = None
    ) -> list[tuple[Features, CachedFeatures]]:
        """Features of images in the order of ids; under torchrun every rank calls it.

        What is on disk is not taken again.

        Args:
            shards: the images, called `what` where progress is shown.
            whole: a damaged image is an error; else it is left out.
            ids: of these images alone, growing; None for all.

        Returns:
            Of each network the features, with their ids, and their place on disk.

        DataError: images are damaged. InputError: the features cannot be written. PluginError: a
        network changed although it was only looked at, or does not give [N, D].
        """
        chosen = np.arange(len(shards)) if ids is None else ids
        before = [state_digest(network.module) for network in self.networks]

        def look() -> tuple[list[CachedFeatures], list[int]]:
            """The first rank's view of it: all ranks have to look in the same place."""
            digest = hashlib.sha256(chosen.tobytes()).hexdigest()
            of = {} if len(chosen) == len(shards) else {"ids": digest}
            facts = map(partial(self._facts, shards), self.networks, before)
            entries = [CachedFeatures(self.store, {**each, **of}) for each in facts]
            there = [0 if (x := entry.read()) is None else len(x.labels) for entry in entries]
            fewest = len(chosen) if whole else 1
            return entries, [n for n, count in enumerate(there) if count < fewest]

        entries, wanted = distributed.from_main(look)
        if wanted:
            networks = [self.networks[n] for n in wanted]
            fill(
                [entries[n] for n in wanted],
                chosen,
                [self._width(network) for network in networks],
                self._rows(networks, self._loader(shards, chosen, whole), what),
            )
            for n in wanted:
                refuse_changed(self.networks[n], before[n])
        return [(distributed.together(partial(_read, entry)), entry) for entry in entries]

    def centers(self, shards: ShardSet) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's share of all images: normalised centre views, and dense ids [n].

        DataError: one is damaged.
        """
        for loaded in self._loader(shards, np.arange(len(shards)), whole=True):
            yield self.normalized(loaded.views[0]), loaded.ids.clone()

    def _loader(self, shards: ShardSet, ids: Ids, whole: bool) -> EvalLoader:
        return EvalLoader(
            shards,
            self.transform.image_size,
            batch=self.batch,
            crop=self.transform.crop,
            ids=ids,
            skip_damaged=not whole,
            workers=self.workers_for(len(ids) // distributed.world_size()),
            rank=distributed.rank(),
            world=distributed.world_size(),
            pin_memory=self.runtime.device.type == "cuda",
        )

    def _rows(self, networks: list[FrozenNetwork], loader: EvalLoader, what: str) -> Rows:
        for loaded in self.progress.follow(loader, len(loader), f"features of {what}"):
            if len(loaded.ids):
                view = self.normalized(loaded.views[0])
                yield loaded.ids.numpy(), [self.encode(n, view) for n in networks], loaded.labels

    def workers_for(self, images: int) -> int:
        """How many loader processes are worth their start for so many images of this process."""
        if images <= FEW:
            return 0
        chosen = self.workers
        return default_workers(self.runtime.device.type) if chosen == "auto" else chosen

    def normalized(self, images: Tensor) -> Tensor:
        """Pixels [N, C, S, S] as networks take them, on the device."""
        t = self.transform
        return normalize_pixels(images, t.mean, t.std, self.runtime.device, self.runtime.dtype)

    def encode(self, network: FrozenNetwork, view: Tensor) -> Tensor:
        """Features [N, D] float32 on the CPU."""
        return frozen(network.module, self.runtime, view).float().cpu()

    def _width(self, network: FrozenNetwork) -> int:
        shape = (1, len(self.transform.mean), *[self.transform.image_size] * 2)
        empty = torch.zeros(shape, dtype=self.runtime.dtype, device=self.runtime.device)
        shape = frozen(network.module, self.runtime, empty).shape
        if len(shape) != 2:
            raise PluginError(
                f"{network.name} gives features {tuple(shape)} of an image, not [1, D]"
            )
        return int(shape[1])

    def _facts(self, shards: ShardSet, network: FrozenNetwork, weights: str) -> dict[str, Any]:
        return {
            "network": network.name,
            "weights": weights,
            "data": shards.digest,
            "transform": self.transform.describe(),
            "precision": self.runtime.precision,
            "device": self.runtime.device.type,
            "batch": self.batch,
            "torch": torch.__version__,
        }


def _read(entry: CachedFeatures) -> Features:
    if (found := entry.read()) is None:
        raise InputError(
            f"rank {distributed.rank()} cannot read the features in {entry.path}",
            "Features need a folder that all processes share.",
        )
    return found
