"""The paper's linear evaluation (arXiv:2011.10566, sec. 3): LARS on features of augmented views."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simsiam_zoo.components.augmentations import SimSiamAugmentation
from simsiam_zoo.data.batches import LoadedBatch
from simsiam_zoo.data.loader import TrainLoader
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.frozen_pass import FrozenPass
from simsiam_zoo.evaluation.protocol import (
    Augmented,
    Features,
    FeatureSplits,
    Score,
    best_classes,
    check_labels,
    make_score,
)
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.checkpoint import load_last, newest_checkpoint, save_checkpoint
from simsiam_zoo.runtime.optim import REFERENCE_BATCH, Lars, Schedule, all_finite

PAPER_LR, CODE_LR = 0.02, 0.1
"""Base lr of the paper's text and of its released code."""

MOMENTUM, TRUST = 0.9, 0.001
SAVE_SECONDS = 60.0
"""A checkpoint is written at the end of an epoch if the last one is at least as old."""

_INIT_STD = 0.01  # as in the released code
_SEED = 0
_CHUNK = 4096

AT_ONCE = 256
"""Images that are loaded and encoded at once, about: a batch of 4096 is made of parts."""

MIN_SCALE, FLIP_P = 0.08, 0.5
"""RandomResizedCrop's and RandomHorizontalFlip's own defaults, as in the released code."""


class LinearPaperProtocol:
    """A linear classifier on augmented views, 90 epochs of LARS; the centre views are the test.

    Views: RandomResizedCrop and flip (`AugmentedViews`). lr = base x batch / 256, cosine,
    momentum 0.9, no weight decay, trust coefficient 0.001 for weights and bias, nothing clipped.
    Features as they are, not standardised; weights drawn from N(0, 0.01^2), bias 0. The lr is
    outside of the momentum (w ← w - lr v), as in the released code, which has apex's LARC around
    torch's SGD. The paper's text says base lr 0.02, its released code 0.1; both are in the figure's
    name, after the one that was used.

    Under torchrun every rank has to call it, and all return the same figure: each takes its share
    of every batch, and gradients are averaged. With a `splits.folder`, which has to be of these
    features and parameters alone, it goes on after an interruption from the last epoch that was
    saved, to the same bits. `batch`: images of all ranks; at most all of the training set.
    """

    version = 2
    collective = True  # every rank calls it

    def __init__(self, *, lr: float, epochs: int, batch: int) -> None:
        self.lr, self.epochs, self.batch = lr, epochs, batch

    def __call__(self, splits: FeatureSplits) -> list[Score]:
        """Train on augmented views, classify the centre views of the test images.

        InputError: no labels, no images to augment, a batch that the ranks cannot share, or it
        diverged. DataError: its checkpoints are damaged.
        """
        check_labels(splits.train, splits.test, splits.classes)
        if splits.augmented is None:
            raise InputError(
                "linear-paper trains on augmented views, and here are only features",
                "Evaluate a run or a network together with its images, or use the protocol linear.",
            )
        batch = min(self.batch, len(splits.train.labels))
        if batch % (world := distributed.world_size()):
            raise InputError(
                f"linear-paper: a batch of {batch} cannot be shared by {world} ranks equally",
                f"Say linear-paper:batch={batch - batch % world}, or use another number of ranks.",
            )
        training = _Training(self, splits, batch)
        training.run(splits.augmented)
        name = (
            f"linear-paper (lr={self.lr:g}; paper {PAPER_LR:g}, its code {CODE_LR:g};"
            f" batch={batch}, epochs={self.epochs})"
        )
        details = {"steps": training.steps * self.epochs, "last_loss": round(training.loss, 6)}
        predicted = training.ranked(splits.test.x)
        return [
            make_score(name, self.version, predicted, splits.test.labels, splits.classes, details)
        ]


class _Training:
    """A classifier on its way through the epochs."""

    def __init__(self, protocol: LinearPaperProtocol, splits: FeatureSplits, batch: int) -> None:
        self.splits, self.batch, self.epochs = splits, batch, protocol.epochs
        self.steps = len(splits.train.labels) // batch  # of an epoch: whole batches only
        width = splits.train.x.shape[1]
        generator = torch.Generator().manual_seed(_SEED)
        weight = torch.randn(splits.classes, width, generator=generator) * _INIT_STD
        # By way of "meta", since the caller's generator must not be drawn from.
        head = nn.Linear(width, splits.classes, device="meta")
        self.head = head.to_empty(device=splits.device)
        self.head.load_state_dict({"weight": weight, "bias": torch.zeros(splits.classes)})
        peak = protocol.lr * batch / REFERENCE_BATCH
        parameters = [*self.head.parameters()]
        group = {"params": parameters, "peak_lr": peak, "schedule": "cosine"}
        self.lars = Lars([group], momentum=MOMENTUM, trust_coefficient=TRUST, lr_in_momentum=False)
        self.loss = float("nan")
        self.folder = splits.folder and splits.folder / f"version-{protocol.version}"

    def run(self, augmented: Augmented) -> None:
        """Every epoch that is left, from the last checkpoint on."""
        schedule = Schedule(self.epochs * self.steps)
        begun = self._load()
        saved = time.monotonic()
        for epoch in range(begun, self.epochs):
            total = torch.zeros((), dtype=torch.float64)
            # There may be one more: damaged images have no centre features, but count there.
            batches = itertools.islice(augmented(epoch, self.batch), self.steps)
            taken = 0
            for taken, features in enumerate(batches, start=1):
                schedule.apply(self.lars, epoch * self.steps + taken - 1)
                total += self._step(features.x, features.labels)
            assert taken == self.steps, f"epoch {epoch} had {taken} batches, not {self.steps}"
            self.loss = float(distributed.mean(total) / self.steps)
            if not all_finite(self.head.parameters()):
                raise InputError(
                    f"linear-paper diverged in epoch {epoch + 1} of {self.epochs}",
                    f"The base lr may be too high: linear-paper:lr={PAPER_LR}",
                )
            if epoch + 1 == self.epochs or time.monotonic() - saved >= SAVE_SECONDS:
                self._save(epoch + 1)
                saved = time.monotonic()

    def _step(self, x: Tensor, labels: Tensor) -> Tensor:
        """One step on this rank's share of a batch; the share's loss, on the CPU."""
        loss = F.cross_entropy(self.head(x.to(self.head.weight)), labels.to(self.splits.device))
        self.lars.zero_grad()
        torch.autograd.backward(loss)
        for parameter in self.head.parameters():
            assert parameter.grad is not None
            parameter.grad = distributed.mean(parameter.grad)
        self.lars.step()
        return loss.detach().double().cpu()

    @torch.no_grad()
    def ranked(self, x: Tensor) -> Tensor:
        """The best classes of features [N, D], the best first."""
        parts = (part.to(self.head.weight) for part in torch.split(x, _CHUNK))
        return torch.cat([best_classes(self.head(part)) for part in parts])

    def _save(self, epochs_done: int) -> None:
        if (folder := self.folder) is None:
            return
        state = {
            "head": self.head.state_dict(),
            "optimizer": self.lars.state_dict(),
            "epochs": epochs_done,
            "loss": self.loss,
        }
        distributed.from_main(lambda: str(save_checkpoint(folder, epochs_done, state)))

    def _load(self) -> int:
        """Take the last checkpoint's state, on every rank; the number of epochs that it has."""
        folder = self.folder
        if folder is None or distributed.from_main(lambda: newest_checkpoint(folder)) is None:
            return 0
        state = distributed.from_main(lambda: load_last(folder)[0])
        self.head.load_state_dict(state["head"])
        self.lars.load_state_dict(state["optimizer"])
        self.loss = float(state["loss"])
        return int(state["epochs"])


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
        self._ready_for: tuple[int, int] | None = None  # epoch and batch that `_loaded` is at

    def __call__(self, epoch: int, batch: int) -> Iterator[Features]:
        """This rank's share of every whole batch of the epoch, [batch / world size, D].

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
    none = ("brightness", "contrast", "saturation", "hue", "jitter_p", "gray_p", "blur_p")
    off = dict.fromkeys(none, 0.0)
    return SimSiamAugmentation(min_scale=MIN_SCALE, flip_p=FLIP_P, interpolation="bilinear", **off)


def part_of(batch: int, lanes: int, world: int) -> int:
    """The size of the equal parts that a batch is loaded in, nearest to `AT_ONCE` for each rank.

    Parts of one batch follow each other in every lane: together they are what the batch would be.
    A part is a multiple of the lanes and of the ranks, where the batch of all ranks is.
    """
    unit = math.lcm(lanes, world)
    sizes = [size for size in range(unit, batch + 1, unit) if batch % size == 0]
    return min(sizes or [batch], key=lambda size: abs(math.log(size / (AT_ONCE * world))))
