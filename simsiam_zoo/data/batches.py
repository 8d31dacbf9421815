"""Ids → a batch of uint8 views: the work of one worker process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from simsiam_zoo.data.image import Pixels, View, center, decode_any, render, to_rgb
from simsiam_zoo.data.shards import Sample, ShardSet
from simsiam_zoo.errors import DataError, ZooError


class Augmentation(Protocol):
    """What an augmentation component gives.

    It may also have `apply(image, view, size)`, used in place of `data.image.render`: from uint8
    [H, W, 3] to uint8 [size, size, 3].
    """

    def sample(self, generator: np.random.Generator, view: int, size: tuple[int, int]) -> View:
        """Draw the parameters of the `view`-th view of an image of `size` (height, width)."""


@dataclass
class LoadedBatch:
    """One rank's share of a step: N samples, V views of each.

    Attributes:
        pixels: uint8 [V, N, 3, S, S], channels last in memory.
        ids: dense sample ids, int64 [N].
        labels: int64 [N], -1 where there is none.
        epoch, step: whose batch it is.
    """

    pixels: Tensor
    ids: Tensor
    labels: Tensor
    epoch: int = 0
    step: int = 0

    @property
    def views(self) -> list[Tensor]:
        """The V views, each uint8 [N, 3, S, S], channels last in memory."""
        return list(self.pixels.unbind())

    def pin_memory(self) -> LoadedBatch:
        """A copy in page-locked memory, from which a GPU copies while the host goes on."""
        pixels, ids, labels = (t.pin_memory() for t in (self.pixels, self.ids, self.labels))
        return LoadedBatch(pixels, ids, labels, self.epoch, self.step)

    def __reduce__(self) -> tuple[object, ...]:
        # Each tensor sent by a worker costs a descriptor and a connection: only the pixels are
        # worth that.
        ids, labels = self.ids.numpy(), self.labels.numpy()
        return _loaded, (self.pixels, ids, labels, self.epoch, self.step)


class Draws:
    """A random generator for each (seed, epoch, id, view): the same whoever asks, and when.

    One Philox bit generator is re-keyed (1 us) rather than one made for each view (7 us).
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.Philox(key=0)
        self._generator = np.random.Generator(self._bits)
        self._state: Any = self._bits.state  # before any draw: its buffer is empty
        self._state["state"]["key"][0] = seed & 0xFFFFFFFFFFFFFFFF

    def at(self, epoch: int, id: int, view: int) -> np.random.Generator:
        """The generator at the start of that view's own 2^64 blocks; good until the next call."""
        self._state["state"]["key"][1] = epoch
        self._state["state"]["counter"][:] = (0, view, id, 0)
        self._bits.state = self._state
        return self._generator


class TrainBatches(Dataset["LoadedBatch | ZooError"]):
    """(epoch, step, ids) → the batch of their drawn views."""

    def __init__(
        self, shards: ShardSet, augmentation: Augmentation, size: int, views: int, seed: int
    ) -> None:
        self.shards, self.augmentation, self.size = shards, augmentation, size
        self.views, self.seed = views, seed
        self._apply = getattr(augmentation, "apply", None)

    def __getitem__(self, item: tuple[int, int, NDArray[np.int64]]) -> LoadedBatch | ZooError:
        epoch, step, ids = item
        try:
            return self._make(epoch, step, ids)
        except ZooError as error:  # as a value: raised in a worker, it comes wrapped in a traceback
            return error

    def _make(self, epoch: int, step: int, ids: NDArray[np.int64]) -> LoadedBatch:
        draws = Draws(self.seed)
        out = _canvas(self.views, len(ids), self.size)
        labels = []
        for row, id in enumerate(ids.tolist()):
            sample, image = _read(self.shards, id)
            labels.append(sample.label)
            for v in range(self.views):
                extent = image.shape[0], image.shape[1]
                view = self.augmentation.sample(draws.at(epoch, id, v), v, extent)
                if self._apply is None:
                    _place(render(image, view, self.size), out[v, row])
                else:
                    _place(self._apply(to_rgb(image), view, self.size), out[v, row])
        return _loaded(_channels_last(out), ids, np.array(labels, np.int64), epoch, step)


class EvalBatches(Dataset["LoadedBatch | ZooError"]):
    """A range of ids → the batch of their center views."""

    def __init__(self, shards: ShardSet, size: int, crop: float) -> None:
        self.shards, self.size, self.crop = shards, size, crop

    def __getitem__(self, ids: range) -> LoadedBatch | ZooError:
        out = _canvas(1, len(ids), self.size)
        labels = []
        try:
            for row, id in enumerate(ids):
                sample, image = _read(self.shards, id)
                labels.append(sample.label)
                _place(center(image, self.size, self.crop), out[0, row])
        except ZooError as error:
            return error
        return _loaded(_channels_last(out), np.array(ids, np.int64), np.array(labels, np.int64))


def _read(shards: ShardSet, id: int) -> tuple[Sample, Pixels]:
    sample = shards.read(id)
    try:
        return sample, decode_any(sample.image)
    except DataError as error:
        raise DataError(f"{shards.name(id)}: {error.what}") from None


def _canvas(views: int, samples: int, size: int) -> Pixels:
    return np.empty((views, samples, size, size, 3), np.uint8)


def _channels_last(out: Pixels) -> Tensor:
    return torch.from_numpy(out).permute(0, 1, 4, 2, 3)


def _place(view: Pixels, slot: Pixels) -> None:
    if view.ndim == 2:
        cv2.cvtColor(view, cv2.COLOR_GRAY2RGB, dst=slot)
    else:
        slot[...] = view


def _loaded(
    pixels: Tensor,
    ids: NDArray[np.int64],
    labels: NDArray[np.int64],
    epoch: int = 0,
    step: int = 0,
) -> LoadedBatch:
    return LoadedBatch(pixels, torch.from_numpy(ids), torch.from_numpy(labels), epoch, step)
