"""Features of augmented training views: what `linear-paper` trains on."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from simsiam_zoo.components.augmentations import SimSiamAugmentation
from simsiam_zoo.data.batches import LoadedBatch
from simsiam_zoo.data.loader import TrainLoader
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.evaluation.features import Features
from simsiam_zoo.evaluation.frozen_pass import FrozenPass
from simsiam_zoo.runtime import distributed

AT_ONCE = 256
"""Images that are loaded and encoded at once, about: a batch of 4096 is made of parts."""

MIN_SCALE, FLIP_P = 0.08, 0.5
"""RandomResizedCrop's and RandomHorizontalFlip's own defaults, as in the released code."""


class AugmentedViews:
    """An `Augmented`: random resized crops, mirrored or not, through a frozen network.

    The views of an epoch depend on (seed, epoch, id), and which images make a batch on the order:
    (counts, seed, epoch, batch, lanes, window). Ranks slice the batches, and choose which image of
    a batch replaces a damaged one; workers change nothing at all. Consecutive epochs, asked for in
    order and each to its end, are one pass of the workers.

    Args:
        frozen: its first network is meant.
        shards: the labelled training images; a stream, which has no ids, cannot be.
        seed: of order and views.
        lanes, window: as for `SampleOrder`; fewer lanes where a batch is no multiple of them.
        epochs: how far the workers may look ahead; more can be asked for.
    """

    def __init__(
        self,
        frozen: FrozenPass,
        shards: ShardSet,
        seed: int = 0,
        lanes: int = 1,
        window: int = 16,
        epochs: int = 90,
    ) -> None:
        self.frozen, self.shards, self.seed = frozen, shards, seed
        self.lanes, self.window, self.epochs = lanes, window, epochs
        self._loaded: Iterator[LoadedBatch] = iter(())
        self._ready_for: tuple[int, int] | None = None  # epoch and batch that `_loaded` is at

    def __call__(self, epoch: int, batch: int) -> Iterator[Features]:
        """This rank's share of every whole batch of the epoch, [batch / world size, D].

        Raises:
            InputError: `batch` cannot be shared by the ranks.
            DataError: a shard is damaged, or all images of a part of a batch.
        """
        part = part_of(batch, math.gcd(batch, self.lanes), distributed.world_size())
        if self._ready_for != (epoch, batch):
            self._loaded = self._loader(batch, part, epoch).batches(epoch)
        loaded, self._ready_for = self._loaded, None
        for _ in range(len(self.shards) // batch):
            yield self._encoded(loaded, batch // part)
        if epoch + 1 < self.epochs:
            self._ready_for = epoch + 1, batch

    def _loader(self, batch: int, part: int, epoch: int) -> TrainLoader:
        lanes = math.gcd(batch, self.lanes)
        plan = SampleOrder(self.shards.counts, self.seed, part, lanes, self.window)
        plan.steps = plan.samples // batch * (batch // part)  # the parts of whole batches alone
        return TrainLoader(
            self.shards,
            plan,
            crop_and_flip(),
            self.frozen.transform.image_size,
            views=1,
            seed=self.seed,
            epochs=max(self.epochs, epoch + 1),
            workers=self.frozen.workers_for(len(self.shards)),
            rank=distributed.rank(),
            world=distributed.world_size(),
            pin_memory=self.frozen.runtime.device.type == "cuda",
        )

    def _encoded(self, loaded: Iterator[LoadedBatch], parts: int) -> Features:
        """Each part is encoded before the next is taken: the loader writes over its pixels."""
        rows: list[Tensor] = []
        labels: list[Tensor] = []
        for _ in range(parts):
            part = next(loaded)
            labels.append(part.labels.clone())
            for images in torch.split(part.views[0], AT_ONCE):
                view = self.frozen.normalized(images)
                rows.append(self.frozen.encode(self.frozen.networks[0], view))
        return Features(torch.cat(rows), torch.cat(labels))


def crop_and_flip() -> SimSiamAugmentation:
    """torchvision's RandomResizedCrop and RandomHorizontalFlip, and nothing else."""
    off = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    off |= dict.fromkeys(("jitter_p", "gray_p", "blur_p"), 0.0)
    return SimSiamAugmentation(min_scale=MIN_SCALE, flip_p=FLIP_P, interpolation="bilinear", **off)


def part_of(batch: int, lanes: int, world: int) -> int:
    """The size of the equal parts that a batch is loaded in, nearest to `AT_ONCE` for each rank.

    Parts of one batch follow each other in every lane: together they are what the batch would be.
    A part is a multiple of the lanes and of the ranks, where the batch of all ranks is.
    """
    unit = math.lcm(lanes, world)
    sizes = [size for size in range(unit, batch + 1, unit) if batch % size == 0]
    return min(sizes or [batch], key=lambda size: abs(math.log(size / (AT_ONCE * world))))
