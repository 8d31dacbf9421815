"""Features of augmented training views: what `linear-paper` trains on."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from simsiam_zoo.components.augmentations import SimSiamAugmentation
from simsiam_zoo.data.loader import LoadedBatch, TrainLoader, default_workers, normalize
from simsiam_zoo.data.plan import Plan
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.evaluation.features import Encoder, Features
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.device import Runtime

AT_ONCE = 256
"""Images that are encoded at once, about: a batch of 4096 is made of smaller ones."""

MIN_SCALE, FLIP_P = 0.08, 0.5
"""RandomResizedCrop's and RandomHorizontalFlip's own defaults, as in the released code."""


class AugmentedViews:
    """An `Augmented`: random resized crops, mirrored or not, through a frozen encoder.

    The views of an epoch depend on (seed, epoch, id), and which of them make a batch on the plan:
    (counts, seed, epoch, batch, lanes, window). The number of ranks slices batches and changes
    nothing else; nor does the number of workers. Which rank has which images of a batch is left
    open. As in training, only whole batches are given, and a damaged image is replaced (by an image
    of the same batch; by which one depends on the number of ranks).

    Consecutive epochs, asked for in order, are one pass of the loader's workers. Iterate over an
    epoch to its end before the next one is asked for.

    Args:
        encode: a frozen network, normalised views [n, 3, S, S] on the runtime's device → [n, D].
        shards: the labelled training images; a stream, which has no ids, cannot be.
        recipe: gives the image size, the normalisation, the seed, lanes, window and workers.
        runtime: gives the device and the images' type.
        epochs: how far the workers may look ahead; more can be asked for.
    """

    def __init__(
        self,
        encode: Encoder,
        shards: ShardSet,
        recipe: Recipe,
        runtime: Runtime,
        epochs: int = 90,
    ) -> None:
        self.encode, self.shards, self.recipe, self.runtime = encode, shards, recipe, runtime
        self.epochs = epochs
        self._loaded: Iterator[LoadedBatch] | None = None
        self._ready_for: tuple[int, int] | None = None  # epoch and batch that `_loaded` is at

    def __call__(self, epoch: int, batch: int) -> Iterator[Features]:
        """This rank's share of every batch of the epoch, [batch / world size, D].

        Raises:
            InputError: `batch` cannot be shared by the ranks.
            DataError: a shard is damaged, or all images of a part of a batch.
        """
        lanes = math.gcd(batch, self.recipe.data.lanes)
        world = distributed.world_size()
        part = part_of(batch, lanes, world)
        if self._ready_for != (epoch, batch):
            data, seed = self.recipe.data, self.recipe.training.seed
            plan = Plan(self.shards.counts, seed, part, lanes, data.window)
            plan.steps = plan.samples // batch * (batch // part)  # of whole batches, no more
            self._loaded = self._loader(plan, epoch, world).batches(epoch)
        assert self._loaded is not None
        loaded, self._ready_for = self._loaded, None
        for _ in range(len(self.shards) // batch):
            yield self._encoded([next(loaded) for _ in range(batch // part)])
        if epoch + 1 < self.epochs:
            self._ready_for = epoch + 1, batch

    def _loader(self, plan: Plan, epoch: int, world: int) -> TrainLoader:
        data, device = self.recipe.data, self.runtime.device.type
        return TrainLoader(
            self.shards,
            plan,
            crop_and_flip(),
            data.image_size,
            views=1,
            seed=self.recipe.training.seed,
            epochs=max(self.epochs, epoch + 1),
            workers=default_workers(device) if data.workers == "auto" else data.workers,
            rank=distributed.rank(),
            world=world,
            pin_memory=device == "cuda",
        )

    def _encoded(self, parts: list[LoadedBatch]) -> Features:
        data, runtime = self.recipe.data, self.runtime
        rows = [
            self.encode(
                normalize(part.views[0], data.mean, data.std, runtime.device, runtime.dtype)
            )
            for part in parts
        ]
        labels = torch.cat([part.labels for part in parts])
        return Features(torch.cat([row.float().cpu() for row in rows]), labels)


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
    )


def part_of(batch: int, lanes: int, world: int) -> int:
    """The size of the equal parts that a batch is loaded in, nearest to `AT_ONCE` for each rank.

    Parts of one batch follow each other in every lane, so together they are the batch that one
    part would be.

    Args:
        batch: of all ranks; a multiple of `lanes`.
        lanes, world: a part is a multiple of each, where the batch is.
    """
    unit = math.lcm(lanes, world)
    sizes = [size for size in range(unit, batch + 1, unit) if batch % size == 0]
    return min(sizes or [batch], key=lambda size: abs(math.log(size / (AT_ONCE * world))))
