"""One pass of frozen networks over images: each image is decoded once for all of them.

Images go in batches of fixed places, so that the same network, images and arithmetic give the same
features whatever the number of processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simsiam_zoo.data.batches import LoadedBatch
from simsiam_zoo.data.loader import EvalLoader, normalize_pixels
from simsiam_zoo.data.processes import default_workers
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.errors import PluginError
from simsiam_zoo.evaluation.augmented import AugmentedViews
from simsiam_zoo.evaluation.features import Features
from simsiam_zoo.evaluation.networks import FrozenNetwork, frozen, refuse_changed, state_digest
from simsiam_zoo.evaluation.store import CachedFeatures, Rows, fill
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.device import Runtime
from simsiam_zoo.runtime.progress import Progress

BATCH = 256
"""Images at once, of each process, where nobody says otherwise."""

FEW = 2048
"""Images of a process up to which starting loader workers takes longer than they save."""

CACHED_BYTES = 256e6
"""Decoded images that are kept for the next pass, at most: 1,024 and 512 of 224 px are 231 MB."""


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


class CachedViews:
    """Decoded images in memory, for passes over the same few images again and again."""

    def __init__(self) -> None:
        self._batches: dict[tuple[object, ...], list[LoadedBatch]] = {}
        self._bytes = 0

    def of(
        self, key: tuple[object, ...], size: int, loader: Iterable[LoadedBatch]
    ) -> Iterator[LoadedBatch]:
        """The batches that were kept under `key`; else the loader's, kept if there is room.

        Args:
            key: what the batches are.
            size: of their pixels, in bytes.
            loader: gives them.
        """
        if key in self._batches:
            yield from self._batches[key]
            return
        keep, batches = self._bytes + size <= CACHED_BYTES, []
        for loaded in loader:
            if keep:  # a loader may write over its pixels
                batches.append(replace(loaded, pixels=loaded.pixels.clone()))
            yield loaded
        if keep:  # only now are they all there
            self._batches[key] = batches
            self._bytes += size


@dataclass(frozen=True)
class FrozenPass:
    """Networks that are looked at and not changed, and the way of images to them.

    Args:
        networks: on the runtime's device.
        transform: what is done to images.
        runtime: device and arithmetic.
        store: the folder that features are kept in; with several processes one that all share.
        batch: images at once, of each process.
        workers: loader processes; None for as many as the machine offers.
        progress: told how far it is.
        views: keeps decoded images, where the same are wanted again.
        durable: False for features that are deleted soon: nothing waits for the disk then.
    """

    networks: Sequence[FrozenNetwork]
    transform: Transform
    runtime: Runtime
    store: Path
    batch: int = BATCH
    workers: int | None = None
    progress: Progress = field(default_factory=Progress)
    views: CachedViews | None = None
    durable: bool = True

    def features(
        self, shards: ShardSet, what: str, *, whole: bool, ids: NDArray[np.int64] | None = None
    ) -> list[tuple[Features, CachedFeatures]]:
        """Features of images in the order of ids; under torchrun every rank calls it.

        What is on disk is not taken again.

        Args:
            shards: the images.
            what: they are called, where progress is shown.
            whole: a damaged image is an error; else it is left out.
            ids: of these images alone, growing; None for all. Where the features of all are kept
                they are taken from there.

        Returns:
            Of each network the features, mapped into memory, with their ids, and their place on
            disk.

        Raises:
            DataError: images are damaged.
            InputError: the features cannot be written.
            PluginError: a network changed although it was only looked at, or does not give [N, D].
        """
        before = [state_digest(network.module) for network in self.networks]
        chosen = np.arange(len(shards)) if ids is None else ids
        # The first rank's facts: all ranks have to look in the same place.
        facts = distributed.from_main(
            lambda: list(map(partial(self._facts, shards), self.networks, before))
        )
        entries = [CachedFeatures(self.store, each) for each in facts]
        found: list[Features | None] = [None] * len(entries)
        if len(chosen) < len(shards):
            of = hashlib.sha256(chosen.tobytes()).hexdigest()
            for n, entry in enumerate(entries):
                if self._usable(entry, len(shards) if whole else 1):
                    found[n] = _only(distributed.together(entry.read), chosen)
                else:
                    entries[n] = CachedFeatures(self.store, facts[n] | {"ids": of})
        wanted = [
            n
            for n, entry in enumerate(entries)
            if found[n] is None and not self._usable(entry, len(chosen) if whole else 0)
        ]
        if wanted:
            self._take(wanted, entries, before, _Images(shards, chosen, what, whole))
        return [
            (self._read(entry, chosen) if there is None else there, entry)
            for entry, there in zip(entries, found, strict=True)
        ]

    def augmented(
        self, shards: ShardSet, seed: int, lanes: int = 1, window: int = 16
    ) -> AugmentedViews:
        """Features of augmented training views by the first network, for `FeatureSplits`.

        Args:
            shards: the training images.
            seed, lanes, window: as for `AugmentedViews`.
        """
        return AugmentedViews(
            frozen(self.networks[0].module, self.runtime),
            shards,
            image_size=self.transform.image_size,
            mean=self.transform.mean,
            std=self.transform.std,
            runtime=self.runtime,
            seed=seed,
            lanes=lanes,
            window=window,
            workers=self._workers(len(shards)),
        )

    def _usable(self, entry: CachedFeatures, fewest: int) -> bool:
        return distributed.from_main(lambda: entry.usable(fewest, self.progress.say))

    def _read(self, entry: CachedFeatures, chosen: NDArray[np.int64]) -> Features:
        read = distributed.together(entry.read)
        assert read.ids is not None  # of the places in `chosen`
        return replace(read, ids=torch.from_numpy(chosen)[read.ids])

    def _take(
        self,
        wanted: Sequence[int],
        entries: Sequence[CachedFeatures],
        before: Sequence[str],
        images: _Images,
    ) -> None:
        """One pass for the networks at `wanted`, whose features are not on disk."""
        networks = [self.networks[n] for n in wanted]

        def rows(numbers: list[int]) -> Rows:
            for loaded in self._loaded(numbers, images):
                view = self._view(loaded)
                features = [self._encoded(network, view) for network in networks]
                yield np.searchsorted(images.ids, loaded.ids.numpy()), features, loaded.labels
            for n in wanted:
                refuse_changed(self.networks[n], before[n])

        fill(
            [entries[n] for n in wanted],
            len(images.ids),
            [self._width(network) for network in networks],
            self.batch,
            rows,
            whole=images.whole,
            say=self.progress.say,
            durable=self.durable,
        )

    def _loaded(self, numbers: list[int], images: _Images) -> Iterator[LoadedBatch]:
        """The batches of these numbers, of `self.batch` images each."""
        parts = [images.ids[n * self.batch : (n + 1) * self.batch] for n in numbers]
        ids = np.concatenate([np.empty(0, np.int64), *parts])
        loader = EvalLoader(
            images.shards,
            self.transform.image_size,
            batch=self.batch,
            crop=self.transform.crop,
            ids=ids,
            skip_damaged=not images.whole,
            workers=self._workers(len(ids)),
            pin_memory=self.runtime.device.type == "cuda",
        )
        batches: Iterable[LoadedBatch] = loader
        if self.views is not None:
            key = (images.shards.digest, ids.tobytes(), self.transform, self.batch, images.whole)
            batches = self.views.of(key, len(ids) * 3 * self.transform.image_size**2, loader)
        yield from self.progress.follow(batches, len(loader), f"features of {images.what}")

    def _workers(self, images: int) -> int:
        if images <= FEW:
            return 0
        return default_workers(self.runtime.device.type) if self.workers is None else self.workers

    def _view(self, loaded: LoadedBatch) -> Tensor:
        """Normalised images [N, 3, S, S] on the device."""
        t = self.transform
        return normalize_pixels(
            loaded.views[0], t.mean, t.std, self.runtime.device, self.runtime.dtype
        )

    def _encoded(self, network: FrozenNetwork, view: Tensor) -> Tensor:
        """Features [N, D] float32 on the CPU."""
        return frozen(network.module, self.runtime)(view).float().cpu()

    def _width(self, network: FrozenNetwork) -> int:
        side = self.transform.image_size
        empty = torch.zeros(1, 3, side, side, dtype=self.runtime.dtype, device=self.runtime.device)
        shape = frozen(network.module, self.runtime)(empty).shape
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
            "transform": asdict(self.transform),
            "precision": self.runtime.precision,
            "device": self.runtime.device.type,
            "batch": self.batch,
            "torch": torch.__version__,
        }


@dataclass(frozen=True)
class _Images:
    """What a pass goes over; as for `FrozenPass.features`."""

    shards: ShardSet
    ids: NDArray[np.int64]
    what: str
    whole: bool


def _only(features: Features, ids: NDArray[np.int64]) -> Features:
    """Those of some images, as far as there are any."""
    assert features.ids is not None
    rows = torch.from_numpy(np.flatnonzero(np.isin(features.ids.numpy(), ids)))
    return Features(features.take(rows), features.labels[rows], features.ids[rows])
