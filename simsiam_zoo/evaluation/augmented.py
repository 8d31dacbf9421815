"""Augmented training views of a network's images, and the images themselves for who trains it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from simsiam_zoo.components.augmentations import SimSiamAugmentation
from simsiam_zoo.data.batches import LoadedBatch
from simsiam_zoo.data.loader import TrainLoader
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.evaluation.frozen_pass import FrozenNetwork, FrozenPass
from simsiam_zoo.evaluation.protocol import Features, NetworkImages
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
        self._ready_for: tuple[float, ...] = ()  # what `_loaded` is at: see `batches`

    def __call__(self, epoch: int, batch: int) -> Iterator[Features]:
        """This rank's share of every whole batch of the epoch, [batch / world size, D].

        DataError: a shard is damaged, or all images of a part of a batch.
        """
        for parts in self.batches(epoch, batch):
            rows, labels = [], []
            for view, truth in parts:
                rows.append(self.frozen.encode(self.frozen.networks[0], view))
                labels.append(truth)
            yield Features(torch.cat(rows), torch.cat(labels))

    def batches(
        self, epoch: int, batch: int, min_scale: float = MIN_SCALE, flip_p: float = FLIP_P
    ) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
        """The same batches as images: parts of each, [n, C, S, S] on the device, and labels [n].

        Each part is to be used before the next is taken, whose pixels the loader may write over it,
        and all parts of a batch before the next batch.
        """
        lanes, world = math.gcd(batch, self.lanes), distributed.world_size()
        part = part_of(batch, lanes, world)
        wanted = batch, min_scale, flip_p
        if self._ready_for != (epoch, *wanted):
            plan = SampleOrder(self.shards.counts, self.seed, part, lanes, self.window)
            plan.steps = plan.samples // batch * (batch // part)  # the parts of whole batches alone
            self._loaded = TrainLoader(
                self.shards,
                plan,
                crop_and_flip(min_scale, flip_p),
                self.frozen.transform.image_size,
                views=1,
                seed=self.seed,
                epochs=max(self.epochs, epoch + 1),
                workers=self.frozen.workers_for(len(self.shards)),
                rank=distributed.rank(),
                world=world,
                pin_memory=self.frozen.runtime.device.type == "cuda",
            ).batches(epoch)
        loaded, self._ready_for = self._loaded, ()
        for _ in range(len(self.shards) // batch):
            yield self._parts(loaded, batch // part)
        if epoch + 1 < self.epochs:
            self._ready_for = epoch + 1, *wanted

    def images_of(self, network: FrozenNetwork, test: ShardSet) -> NetworkImages:
        """The network with these views of its training images, and with its test images."""

        def copied() -> nn.Module:
            return copy.deepcopy(network.module).eval().requires_grad_()

        transform = self.frozen.transform
        return NetworkImages(
            copied,
            (len(transform.mean), transform.image_size, transform.image_size),
            len(self.shards),
            self.batches,
            lambda: self.frozen.centers(test),
            self.frozen.runtime,
            self.frozen.progress,
        )

    def _parts(self, loaded: Iterator[LoadedBatch], parts: int) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(parts):
            part = next(loaded)
            labels = torch.split(part.labels.clone(), AT_ONCE)
            for images, truth in zip(torch.split(part.views[0], AT_ONCE), labels, strict=True):
                yield self.frozen.normalized(images), truth


def crop_and_flip(min_scale: float = MIN_SCALE, flip_p: float = FLIP_P) -> SimSiamAugmentation:
    """torchvision's RandomResizedCrop and RandomHorizontalFlip, and nothing else."""
    none = ("brightness", "contrast", "saturation", "hue", "jitter_p", "gray_p", "blur_p")
    off = dict.fromkeys(none, 0.0)
    return SimSiamAugmentation(min_scale=min_scale, flip_p=flip_p, interpolation="bilinear", **off)


def part_of(batch: int, lanes: int, world: int) -> int:
    """The size of the equal parts that a batch is loaded in, nearest to `AT_ONCE` for each rank.

    Parts of one batch follow each other in every lane: together they are what the batch would be.
    A part is a multiple of the lanes and of the ranks, where the batch of all ranks is.
    """
    unit = math.lcm(lanes, world)
    sizes = [size for size in range(unit, batch + 1, unit) if batch % size == 0]
    return min(sizes or [batch], key=lambda size: abs(math.log(size / (AT_ONCE * world))))
