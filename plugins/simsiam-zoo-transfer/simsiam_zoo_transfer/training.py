"""A classifier trained on a network's images: what fine-tuning and probes of tokens share."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from simsiam_zoo.plugin import (
    FeatureSplits,
    InputError,
    NetworkImages,
    mean,
    rank,
    total,
    train_epochs,
    world_size,
)

REFERENCE_BATCH = 256
"""The lr used is base x batch / 256."""

Autocast = Callable[[], AbstractContextManager[object]]

RANKS = 5  # classes that a prediction ranks, for top-5
_AT_ONCE = 256  # images of the step that is timed


@dataclass(frozen=True)
class Course:
    """How long a protocol trains, and on what.

    Args:
        name, version: the protocol's.
        epochs, warmup: in all; those at the beginning in which the lr grows linearly.
        batch: images of all ranks for each step.
        min_scale, flip_p: of the random resized crops, and how often they are mirrored.
        seed: of dropout.
    """

    name: str
    version: int
    epochs: int
    warmup: int
    batch: int
    min_scale: float
    flip_p: float
    seed: int

    def lr_factor(self, step: int, steps: int) -> float:
        """What the peak lr is multiplied by: linear warm-up, then a cosine to 0."""
        warmup, last = self.warmup * steps, self.epochs * steps
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, last - warmup)))


def open_images(splits: FeatureSplits, name: str, batch: int) -> tuple[NetworkImages, int]:
    """The network with its images, and the batch: at most all of them.

    InputError: there are only features, or the ranks cannot share a batch.
    """
    if (images := splits.images) is None:
        raise InputError(
            f"{name} needs the network and its images, and here are only features",
            "Evaluate a run or a network together with its images.",
        )
    batch, world = min(batch, images.count), world_size()
    if rest := batch % world:
        raise InputError(
            f"{name}: a batch of {batch} cannot be shared by {world} ranks equally",
            f"Say {name}:batch={batch - rest}, or use another number of ranks.",
        )
    return images, batch


def parameter_groups(module: nn.Module, lr: float, wd: float) -> list[dict[str, Any]]:
    """Groups for an optimiser with `peak_lr`; norms, biases and queries have no weight decay."""
    trained = [p for p in module.parameters() if p.requires_grad]
    split = ([p for p in trained if p.ndim > 1], wd), ([p for p in trained if p.ndim <= 1], 0.0)
    return [
        {"params": params, "peak_lr": lr, "weight_decay": decay}
        for params, decay in split
        if params
    ]


def linear_layer(width: int, classes: int, seed: int) -> nn.Linear:
    """A layer with weights from N(0, 0.01^2) and no bias at the start; draws nothing else's."""
    layer = nn.Linear(width, classes, device="meta").to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    nn.init.normal_(layer.weight, std=0.01, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def fit(
    course: Course, splits: FeatureSplits, model: nn.Module, optimizer: Optimizer
) -> tuple[Tensor, dict[str, Any]]:
    """Train `model`, [N, C, S, S] → [N, classes], and rank the test images; every rank calls it.

    Each rank takes its share of every batch, and gradients are averaged; BN has the statistics of
    a rank's share, and the mean of the ranks' running ones. It goes on from the last epoch that
    was saved.

    Returns:
        The best classes [N, up to 5] of each test image, and what to say of the training.

    InputError: it diverged. DataError: images or its checkpoints are damaged.
    """
    images, batch = open_images(splits, course.name, course.batch)
    training = _Training(course, images, batch, model, optimizer)
    images.progress.say(training.cost())
    kept = {"model": model, "optimizer": optimizer, "scaler": training.scaler}
    folder = splits.folder and splits.folder / f"version-{course.version}"
    images.progress.begin(course.name, training.whole, epochs=course.epochs)
    try:
        loss = train_epochs(course.epochs, folder, kept, training.epoch)
    finally:
        images.progress.end()
    details = {
        "epochs": course.epochs,
        "warmup_epochs": course.warmup,
        "batch": batch,
        "steps": training.whole,
        "min_scale": course.min_scale,
        "flip_p": course.flip_p,
        "seed": course.seed,
        "trained_parameters": training.size,
        "last_loss": round(loss, 6),
    }
    return _ranked(model, splits, images), details


class _Training:
    """A model on its way through the epochs, of `whole` steps and `size` trained parameters."""

    def __init__(
        self,
        course: Course,
        images: NetworkImages,
        batch: int,
        model: nn.Module,
        optimizer: Optimizer,
    ) -> None:
        self.course, self.images, self.batch = course, images, batch
        self.model, self.optimizer, self.scaler = model, optimizer, images.runtime.scaler()
        self.trained = [p for group in optimizer.param_groups for p in group["params"]]
        self.size = sum(p.numel() for p in self.trained)
        self.steps = images.count // batch  # of an epoch
        self.whole = course.epochs * self.steps

    def epoch(self, number: int) -> float:
        """Train an epoch; its loss. What dropout draws follows from the seed and the number."""
        course, device = self.course, self.images.runtime.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed((course.seed << 32) + (number << 16) + rank())
            self.model.train()
            losses = []  # on the device until the epoch's end: a step waits for nothing
            batches = self.images.train(number, self.batch, course.min_scale, course.flip_p)
            for place, parts in enumerate(batches, start=number * self.steps):
                self.images.progress.advance(place)
                losses.append(self._step(place, parts))
        summed = torch.stack(losses).cpu().double().sum()
        for buffer in self.model.buffers():
            if buffer.is_floating_point() and world_size() > 1:
                buffer.copy_(mean(buffer))
        if not math.isfinite(loss := float(mean(summed) / self.steps)):
            raise InputError(
                f"{course.name} diverged in epoch {number + 1} of {course.epochs}",
                f"The base lr may be too high: {course.name}:lr=...",
            )
        return loss

    def _step(self, number: int, parts: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
        """One step on this rank's share of a batch; the mean over ranks is the batch's loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * self.course.lr_factor(number, self.steps)
        self.optimizer.zero_grad()
        summed = torch.zeros((), device=self.images.runtime.device)
        for x, labels in parts:
            share = len(labels) * world_size() / self.batch
            loss = share * F.cross_entropy(self.model(x).float(), labels.to(x.device))
            torch.autograd.backward(self.scaler.scale(loss))
            summed += loss.detach()
        if world_size() > 1:
            for parameter in self.trained:
                if parameter.grad is not None:
                    parameter.grad = mean(parameter.grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return summed

    def cost(self) -> str:
        """What the training takes, in words; a step is timed on a copy, with images of zeros."""
        runtime, share = self.images.runtime, self.batch // world_size()
        few, cuda = min(share, _AT_ONCE), runtime.device.type == "cuda"
        x = torch.zeros(few, *self.images.shape, device=runtime.device, dtype=runtime.dtype)
        tried, seconds = copy.deepcopy(self.model).train(), 0.0
        with torch.random.fork_rng(devices=[runtime.device] if cuda else []):
            for _ in range(2):  # what a device does first takes longer
                began = time.perf_counter()
                torch.autograd.backward(tried(x).float().logsumexp(1).sum())
                if cuda:
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - began
        seconds *= share / few * self.whole
        about = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
        course, epochs = self.course, "epochs" if self.course.epochs > 1 else "epoch"
        size = f"{self.size / 1e6:.1f} M" if self.size >= 1e6 else f"{self.size:,}"
        return (
            f"{course.name}: {course.epochs} {epochs} of {self.images.count:,} images,"
            f" {self.whole:,} steps, {size} parameters, about {about}"
        )


@torch.no_grad()
def _ranked(model: nn.Module, splits: FeatureSplits, images: NetworkImages) -> Tensor:
    """The best classes of every test image; each rank looks at its share."""
    model.eval()
    ranked = torch.zeros(len(splits.test.labels), min(RANKS, splits.classes), dtype=torch.int64)
    for x, rows in images.test():
        order = model(x).float().sort(dim=1, descending=True, stable=True).indices
        ranked[rows] = order[:, :RANKS].cpu()
    return total(ranked)
