"""What an evaluation protocol is: features in, scores out, each with a name and a version."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

import numpy as np
import torch
from torch import Tensor, nn

from simsiam_zoo.data.order import keyed_order
from simsiam_zoo.errors import InputError
from simsiam_zoo.runtime.device import Runtime
from simsiam_zoo.runtime.progress import Progress

RANKS = 5
"""Classes that a prediction ranks, where there are so many: top-5 is taken of them."""

RESAMPLES = 1000
"""Bootstrap resamples of the test images."""

_SEED = 0
_CHUNK = 4096  # rows that are looked through at once


@dataclass(frozen=True)
class Features:
    """Features of one split: x [N, D] float32 on the CPU, and labels [N] int64.

    Of a large split x is a map of a file, to be read in parts. `ids`: dense ids of the images,
    [N] int64, growing; None where nobody asked for them.
    """

    x: Tensor
    labels: Tensor
    ids: Tensor | None = None


Augmented = Callable[[int, int], Iterator[Features]]
"""(epoch, batch) → this rank's share of the epoch's batches: features of augmented training views.

`batch` counts all ranks' images. The same epoch has the same views and the same order, for any
number of ranks; only whole batches are given.
"""


ImageParts = Iterator[tuple[Tensor, Tensor]]
"""Images [n, C, S, S], normalised, on the device, and a whole number [n] of each, on the CPU.

Each part, of a few hundred images at most, is to be used before the next one is taken.
"""


@dataclass(frozen=True)
class NetworkImages:
    """A network and its images, for a protocol that trains it or looks into it.

    Args:
        network: gives a copy of it, [N, C, S, S] → [N, D], in eval mode, on the device.
        shape: (C, S, S) of an image.
        count: training images of all ranks, those included that turn out to be damaged.
        train: (epoch, batch, min_scale, flip_p) → the epoch's count // batch whole batches; of
            each this rank's share, batch / world size random resized crops, mirrored or not, with
            their labels. The same epoch has the same views and the same order.
        test: this rank's share of the test images' centre views, with their rows in the splits.
        runtime: the device, the autocast, and the scaler of the loss that fp16 needs.
        progress: shows how far a training is.
    """

    network: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    count: int
    train: Callable[[int, int, float, float], Iterator[ImageParts]]
    test: Callable[[], ImageParts]
    runtime: Runtime
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True)
class FeatureSplits:
    """One network's features, and the classes they are to tell apart.

    Args:
        train, test: of the centre views; x may be memory-mapped.
        classes: how many there are; labels are below it.
        augmented: gives an epoch of augmented training views; None where there are no images.
        folder: where a long protocol may keep what it needs to go on after an interruption.
        device: where a protocol computes.
        images: the network itself and its images; None where there are only features.
    """

    train: Features
    test: Features
    classes: int
    augmented: Augmented | None = None
    folder: Path | None = None
    device: torch.device | str = "cpu"
    images: NetworkImages | None = None


@dataclass(frozen=True)
class Score:
    """What one protocol found; top-1 accuracy first of all.

    Args:
        protocol: the name with its parameters, e.g. `knn (k=20, t=0.1)`.
        version: of the protocol; raised whenever its numbers would change.
        top1: share of test images whose label was predicted, 0 to 1.
        correct: [N] bool, one for each test image in id order.
        details: anything that a reader of the score should know.
        top5: share whose label was among the best five; None where five are not ranked.
        interval: 95% bootstrap interval of top-1 over the choice of test images.
        predicted: [N] int64, the classes that were predicted; None where only `correct` is known.
    """

    protocol: str
    version: int
    top1: float
    correct: Tensor
    details: dict[str, Any] = field(default_factory=dict)
    top5: float | None = None
    interval: tuple[float, float] | None = None
    predicted: Tensor | None = None


class EvaluationProtocol(Interface):
    """The contract of a component of the kind `protocol`.

    One that trains on augmented views for many epochs, on all ranks, says `collective = True`:
    every rank calls it, and of a run's end only the trained network is measured by it. One that
    trains the network, or looks into it, says `wants_images = True` and gets `splits.images`: every
    rank calls it, for the trained and for the untrained network.
    """

    def __call__(self, splits: FeatureSplits) -> list[Score]:
        """Fit on the training images alone, predict the test images; one score or several."""


def is_collective(protocol: EvaluationProtocol) -> bool:
    """Whether every rank has to call the protocol."""
    return bool(getattr(protocol, "collective", False)) or wants_images(protocol)


def wants_images(protocol: EvaluationProtocol) -> bool:
    """Whether the protocol needs the network and its images, not only features."""
    return bool(getattr(protocol, "wants_images", False))


def check_labels(train: Features, test: Features, classes: int) -> None:
    """Refuse no images, no labels, one class only, or a label that is no class: InputError."""
    for name, split in (("training", train), ("test", test)):
        if not len(split.labels):
            raise InputError(f"there are no {name} images, so nothing can be measured")
        if int(split.labels.min()) < 0:
            raise InputError(
                f"the {name} images are not all labelled, so nothing can be measured",
                "Pack them with their classes, or embed them without labels.",
            )
        if int(split.labels.max()) >= classes:
            raise InputError(
                f"a {name} image has label {int(split.labels.max())}, of {classes} classes"
            )
    if bool((train.labels == train.labels[0]).all()):
        raise InputError("the training images are all of one class, so nothing can be measured")


def refuse_infinite(*splits: Features) -> None:
    """Stop where a feature is not finite, before it makes figures: InputError."""
    for split in splits:
        for rows in torch.split(split.x, _CHUNK):
            if not bool(rows.isfinite().all()):
                raise InputError(
                    "the network gives features that are not finite",
                    "If its weights are, --precision fp32 may help.",
                )


def make_score(
    protocol: str,
    version: int,
    predicted: Tensor,
    labels: Tensor,
    classes: int,
    details: dict[str, Any] | None = None,
) -> Score:
    """The score of predictions against labels [N]; `protocol`, `version`, `details` as in `Score`.

    `predicted`: classes [N]; or the best classes [N, R], the best first, which gives top-5 where R
    is 5 and there are more classes than that.
    """
    best = predicted if predicted.ndim == 1 else predicted[:, 0]
    correct = torch.eq(best, labels)
    top5 = None
    if predicted.ndim == 2 and predicted.shape[1] >= RANKS and classes > RANKS:
        among = (predicted[:, :RANKS] == labels[:, None]).any(dim=1)
        top5 = int(among.sum()) / len(labels)
    return Score(
        protocol,
        version,
        int(correct.sum()) / len(labels),
        correct,
        details or {},
        top5=top5,
        interval=bootstrap_interval(correct),
        predicted=best,
    )


def best_classes(logits: Tensor) -> Tensor:
    """The best classes [N, up to `RANKS`] by logits [N, C], the best first; on the CPU."""
    return logits.sort(dim=1, descending=True, stable=True).indices[:, :RANKS].cpu()


def of_each_class(labels: Tensor, key: int, quota: Callable[[int], int]) -> Tensor:
    """Ids [n] int64, ascending, of `quota(count)` of the `count` images of each class.

    Which of them are taken a hash of their ids decides, with the key. Labels [N].
    """
    chosen = [np.empty(0, np.int64)]
    for label in np.unique(labels.numpy()):
        members = np.flatnonzero(labels.numpy() == label)
        chosen.append(members[keyed_order(members, key)[: quota(len(members))]])
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def confusion_matrix(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts [classes, classes] int64: row the label, column the prediction."""
    with _any_plot_backend():  # a second to import, so only what counts pays
        from torchmetrics.functional.classification import multiclass_confusion_matrix

    matrix: Tensor = multiclass_confusion_matrix(predicted, labels, num_classes=classes)
    return matrix


@contextmanager
def _any_plot_backend() -> Iterator[None]:
    """torchmetrics imports matplotlib, which fails where MPLBACKEND names no backend of its own."""
    backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
            with suppress(KeyError, ValueError):
                sys.modules["matplotlib"].rcParams["backend"] = backend


def class_accuracies(confusion: Tensor) -> list[float | None]:
    """Share of each class's images that were classified right; None where there is no image."""
    pairs = zip(confusion.diagonal().tolist(), confusion.sum(dim=1).tolist(), strict=True)
    return [hits / count if count else None for hits, count in pairs]


def bootstrap_interval(correct: Tensor) -> tuple[float, float]:
    """95% percentile bootstrap interval of an accuracy, over the choice of the [N] test images.

    A resample of N images that are right or wrong has as many right ones as a binomial draw of N
    with the share that was right: that is drawn, `RESAMPLES` times, always with the same seed.
    """
    n, right = len(correct), int(correct.sum())
    shares = np.random.default_rng(_SEED).binomial(n, right / n, RESAMPLES) / n
    low, high = np.quantile(shares, (0.025, 0.975))
    return float(low), float(high)


def number_classes(
    splits: FeatureSplits, names: Sequence[str] | None
) -> tuple[FeatureSplits, list[int] | None]:
    """The splits with labels that count from 0 without a gap, and with their number of classes.

    Labels that are numbers of a catalogue, 0 to 90,000 say, would need tables of that size. Where
    names are told, labels are their places, and stay.

    Returns:
        The splits, and the label that each class had; None where labels stay as they are.
    """
    labels = torch.cat([splits.train.labels, splits.test.labels])
    known = torch.from_numpy(np.unique(labels.numpy()))  # ascending
    count = max(len(names or ()), 1 + int(known[-1]))
    if names or len(known) == count:
        return dataclasses.replace(splits, classes=count), None

    def numbered(features: Features) -> Features:
        return dataclasses.replace(features, labels=torch.searchsorted(known, features.labels))

    def augmented(epoch: int, batch: int) -> Iterator[Features]:
        assert splits.augmented is not None
        yield from map(numbered, splits.augmented(epoch, batch))

    def train(*wanted: Any) -> Iterator[ImageParts]:
        assert splits.images is not None
        for parts in splits.images.train(*wanted):
            yield ((x, torch.searchsorted(known, labels)) for x, labels in parts)

    images = splits.images and dataclasses.replace(splits.images, train=train)
    changed = dataclasses.replace(
        splits,
        train=numbered(splits.train),
        test=numbered(splits.test),
        classes=len(known),
        augmented=None if splits.augmented is None else augmented,
        images=images,
    )
    return changed, known.tolist()


def grey_once(*splits: Features) -> tuple[Features, ...]:
    """Raw pixels [N, 3 P] as [N, P] where all images are grey: repeats only cost time."""
    for split in splits:
        for rows in torch.split(split.x, _CHUNK):
            red, green, blue = rows.chunk(3, dim=1)
            if not (torch.equal(red, green) and torch.equal(red, blue)):
                return splits
    return tuple(
        dataclasses.replace(split, x=split.x[:, : split.x.shape[1] // 3]) for split in splits
    )
