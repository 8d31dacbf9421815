"""One pass of a frozen network over images, kept on disk for every protocol.

Images go in batches of fixed places, so that the same network, images and arithmetic give the same
features whatever the number of processes.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simsiam_zoo.data.batches import LoadedBatch
from simsiam_zoo.data.loader import EvalLoader, normalize_pixels
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.errors import PluginError
from simsiam_zoo.evaluation.augmented import AugmentedViews
from simsiam_zoo.evaluation.features import Features, frozen
from simsiam_zoo.evaluation.store import Entry, Rows, cached, usable
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.device import Runtime
from simsiam_zoo.runtime.progress import Progress


@dataclass(frozen=True)
class Transform:
    """How an image becomes what the network sees: the centre, resized and normalised.

    Args:
        image_size: side in pixels.
        crop: share of the resized short side that is kept; 0.875 is 224 of 256.
        mean, std: of each channel, for pixels in 0..1.
    """

    image_size: int
    crop: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def describe(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {name: list(x) if isinstance(x, tuple) else x for name, x in asdict(self).items()}


@dataclass(frozen=True)
class FrozenPass:
    """A network that is looked at and not changed, and the way of images to it.

    Args:
        network: [N, 3, S, S] → [N, D], on the runtime's device.
        name: the component, with its parameters: what the weights are weights of.
        transform: what is done to images.
        runtime: device and arithmetic.
        store: the folder that features are kept in; with several processes one that all share.
        batch: images at once, of each process.
        workers: loader processes.
        progress: told how far it is.
    """

    network: nn.Module
    name: str
    transform: Transform
    runtime: Runtime
    store: Path
    batch: int = 256
    workers: int = 0
    progress: Progress = field(default_factory=Progress)

    def features(
        self, shards: ShardSet, what: str, *, whole: bool, ids: NDArray[np.int64] | None = None
    ) -> tuple[Features, Entry]:
        """Features of images in the order of ids; under torchrun every rank calls it.

        Args:
            shards: the images.
            what: they are called, where progress is shown.
            whole: a damaged image is an error; else it is left out.
            ids: of these images alone, growing; None for all. Where the features of all are kept
                they are taken from there.

        Returns:
            The features, mapped into memory, with their ids; and their place on disk.

        Raises:
            DataError: images are damaged.
            InputError: the features cannot be written.
            PluginError: the network changed although it was only looked at, or does not give
                [N, D].
        """
        before = state_digest(self.network)
        facts = self._facts(shards, before)
        entry, chosen = Entry(self.store, facts), np.arange(len(shards))
        if ids is not None and len(ids) < len(shards):
            if distributed.from_main(lambda: usable(entry, len(shards) if whole else 1)):
                return _only(entry.mapped(), ids), entry
            entry = Entry(self.store, facts | {"ids": hashlib.sha256(ids.tobytes()).hexdigest()})
            chosen = ids
        loader = EvalLoader(
            shards,
            self.transform.image_size,
            batch=self.batch,
            crop=self.transform.crop,
            ids=chosen,
            skip_damaged=not whole,
            workers=self.workers,
            rank=distributed.rank(),
            world=distributed.world_size(),
        )

        def rows() -> Rows:
            for loaded in self.progress.follow(loader, len(loader), f"features of {what}"):
                places = np.searchsorted(chosen, loaded.ids.numpy())
                yield places, self._encoded(loaded), loaded.labels
            refuse_changed(self.network, before, self.name)

        found = cached(entry, len(chosen), self._width(), rows, self.progress.say, whole=whole)
        assert found.ids is not None  # of the places in `chosen`
        return replace(found, ids=torch.from_numpy(chosen)[found.ids]), entry

    def augmented(self, shards: ShardSet, seed: int) -> AugmentedViews:
        """Features of augmented training views, for `FeatureSplits.augmented`."""
        return AugmentedViews(
            frozen(self.network, self.runtime),
            shards,
            image_size=self.transform.image_size,
            mean=self.transform.mean,
            std=self.transform.std,
            runtime=self.runtime,
            seed=seed,
            workers=self.workers,
        )

    def _encoded(self, loaded: LoadedBatch) -> Tensor:
        """Features [N, D] float32 on the CPU."""
        t = self.transform
        view = normalize_pixels(
            loaded.views[0], t.mean, t.std, self.runtime.device, self.runtime.dtype
        )
        return frozen(self.network, self.runtime)(view).float().cpu()

    def _width(self) -> int:
        side = self.transform.image_size
        empty = torch.zeros(1, 3, side, side, dtype=self.runtime.dtype, device=self.runtime.device)
        shape = frozen(self.network, self.runtime)(empty).shape
        if len(shape) != 2:
            raise PluginError(f"{self.name} gives features {tuple(shape)} of an image, not [1, D]")
        return int(shape[1])

    def _facts(self, shards: ShardSet, weights: str) -> dict[str, Any]:
        return {
            "network": self.name,
            "weights": weights,
            "data": shards.digest,
            "transform": asdict(self.transform),
            "precision": self.runtime.precision,
            "device": self.runtime.device.type,
            "batch": self.batch,
            "torch": torch.__version__,
        }


def _only(features: Features, ids: NDArray[np.int64]) -> Features:
    """Those of some images, as far as there are any."""
    assert features.ids is not None
    rows = torch.from_numpy(np.flatnonzero(np.isin(features.ids.numpy(), ids)))
    return Features(features.x[rows], features.labels[rows], features.ids[rows])


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


def refuse_changed(network: nn.Module, before: str, name: str) -> None:
    """Stop where a network is not what it was.

    Args:
        network: what was looked at.
        before: its `state_digest` before.
        name: what it is called.

    Raises:
        PluginError: a parameter or a buffer is another one.
    """
    if state_digest(network) != before:
        raise PluginError(
            f"{name} changed while its features were taken, in eval mode and without gradient",
            "A module of it writes to a buffer in every forward pass; its figures mean nothing.",
        )
