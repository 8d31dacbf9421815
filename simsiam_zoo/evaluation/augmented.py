"""Features of augmented training views: what `linear-paper` trains on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from simsiam_zoo.components.augmentations import SimSiamAugmentation
from simsiam_zoo.data.batches import LoadedBatch
from simsiam_zoo.data.loader import TrainLoader, normalize_pixels
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.evaluation.features import Features
from simsiam_zoo.evaluation.networks import Encoder
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.device import Runtime

AT_ONCE = 256
"""Images that are loaded and encoded at once, about: a batch of 4096 is made of parts."""

MIN_SCALE, FLIP_P = 0.08, 0.5
"""RandomResizedCrop's and RandomHorizontalFlip's own defaults, as in the released code."""


class AugmentedViews:
    """An `Augmented`: random resized crops, mirrored or not, through a frozen encoder.

    The views of an epoch depend on (seed, epoch, id), and which images make a batch on the plan:
    (counts, seed, epoch, batch, lanes, window). The number of ranks slices the batches and changes
    nothing else, but for which image of a batch replaces a damaged one; the number of workers
    changes nothing at all.

    Consecutive epochs, asked for in order and each to its end, are one pass of the workers.

    Args:
        encode: a frozen network, normalised views [n, 3, S, S] on the runtime's device → [n, D].
        shards: the labelled training images; a stream, which has no ids, cannot be.
        image_size: side S in pixels.
        mean, std: of each channel, for pixels in 0..1; the network's own.
        runtime: gives the device and the views' type.
        seed: of order and views.
        lanes, window: as for `Plan`. Where a batch is no multiple of the lanes, fewer are taken.
        workers: as for `TrainLoader`.
        epochs: how far the workers may look ahead; more can be asked for.
    """

    def __init__(
        self,
        encode: Encoder,
        shards: ShardSet,
        *,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        runtime: Runtime,
        seed: int = 0,
        lanes: int = 1,
        window: int = 16,
        workers: int = 0,
        epochs: int = 90,
    ) -> None:
        self.encode, self.shards, self.image_size = encode, shards, image_size
        self.mean, self.std, self.runtime = mean, std, runtime
        self.seed, self.lanes, self.window = seed, lanes, window
        self.workers, self.epochs = workers, epochs
        self._loaded: Iterator[LoadedBatch] | None = None
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
        assert self._loaded is not None
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
            self.image_size,
            views=1,
            seed=self.seed,
            epochs=max(self.epochs, epoch + 1),
            workers=self.workers,
            rank=distributed.rank(),
            world=distributed.world_size(),
            pin_memory=self.runtime.device.type == "cuda",
        )

    def _encoded(self, loaded: Iterator[LoadedBatch], parts: int) -> Features:
        """Each part is encoded before the next is taken: the loader writes over its pixels."""
        rows: list[Tensor] = []
        labels: list[Tensor] = []
        for _ in range(parts):
            part = next(loaded)
            labels.append(part.labels.clone())
            for images in torch.split(part.views[0], AT_ONCE):
                view = normalize_pixels(
                    images, self.mean, self.std, self.runtime.device, self.runtime.dtype
                )
                rows.append(self.encode(view).float().cpu())
        return Features(torch.cat(rows), torch.cat(labels))


def crop_and_flip() -> SimSiamAugmentation:
    """torchvision's RandomResizedCrop and RandomHorizontalFlip, and nothing else."""
    return SimSiamAugmentation(
        min_scale=MIN_SCALE,
        brightness=0.0,
        contrast=0.0,
        saturation=0.0,
        hue=0.0,
        jitter_p=0.0,
        gray_p=0.0,
        blur_p=0.0,
        flip_p=FLIP_P,
        interpolation="bilinear",
    )


def part_of(batch: int, lanes: int, world: int) -> int:
    """The size of the equal parts that a batch is loaded in, nearest to `AT_ONCE` for each rank.

    Parts of one batch follow each other in every lane: together they are what the batch would be.

    Args:
        batch: of all ranks; a multiple of `lanes`.
        lanes, world: a part is a multiple of both, where the batch is.
    """
    unit = math.lcm(lanes, world)
    sizes = [size for size in range(unit, batch + 1, unit) if batch % size == 0]
    return min(sizes or [batch], key=lambda size: abs(math.log(size / (AT_ONCE * world))))
