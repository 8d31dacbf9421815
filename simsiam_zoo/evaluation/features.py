"""What protocols measure on: frozen features, their labels, and how to get more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simsiam_zoo.model.siamese import Batch
from simsiam_zoo.runtime.device import Runtime

RAW_SIDE = 32
"""Raw pixels are compared at this side at most: nobody's baseline should need 150,000 channels."""

Encoder = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Features:
    """Features of one split.

    Args:
        x: [N, D] float32, on the CPU.
        labels: [N] int64.
        ids: dense ids of the images, [N] int64, growing; None where nobody asked for them.
        file: that x is mapped from, float32 row after row; None where x lies in memory.
    """

    x: Tensor
    labels: Tensor
    ids: Tensor | None = None
    file: Path | None = None

    def chunks(self, rows: int) -> Iterator[Tensor]:
        """x, so many rows at a time, the last chunk maybe smaller.

        A file is read and not mapped: pages that were mapped count as this process's memory until
        the system wants them back, and would add up to all of the file.
        """
        if self.file is None:
            yield from torch.split(self.x, rows)
            return
        width = self.x.shape[1]
        with self.file.open("rb") as file:
            for start in range(0, len(self.x), rows):
                count = min(rows, len(self.x) - start) * width
                yield torch.from_numpy(np.fromfile(file, np.float32, count)).view(-1, width)


Augmented = Callable[[int, int], Iterator[Features]]
"""(epoch, batch) → this rank's share of the epoch's batches: features of augmented training views.

`batch` counts all ranks' images. The same epoch has the same views and the same order, for any
number of ranks; only whole batches are given.
"""


@dataclass(frozen=True)
class FeatureSplits:
    """One network's features, and the classes they are to tell apart.

    Args:
        train, test: of the centre views; train x may be memory-mapped.
        classes: how many there are.
        augmented: gives an epoch of augmented training views; None where there are no images.
        folder: where a long protocol may keep what it needs to go on after an interruption.
        device: where a protocol that trains something computes.
    """

    train: Features
    test: Features
    classes: int
    augmented: Augmented | None = None
    folder: Path | None = None
    device: torch.device | str = "cpu"


@dataclass(frozen=True)
class Split:
    """The features of one split by several encoders, taken in one pass over the images."""

    labels: Tensor
    by_encoder: dict[str, Tensor]

    def of(self, encoder: str) -> Features:
        """What the protocols take."""
        return Features(self.by_encoder[encoder], self.labels)


def extract(batches: Iterable[Batch], encoders: dict[str, Encoder]) -> Split:
    """Run each encoder over normalised batches; each image is read and decoded once.

    Args:
        batches: with one view [N, 3, H, W] each, and labels.
        encoders: name → function of a view to [N, D].
    """
    rows: dict[str, list[Tensor]] = {name: [] for name in encoders}
    labels: list[Tensor] = []
    for batch in batches:
        view = batch.views[0]
        for name, encode in encoders.items():
            rows[name].append(encode(view).float().cpu())
        assert batch.labels is not None  # an evaluation loader always gives them
        labels.append(batch.labels.cpu())
    return Split(torch.cat(labels), {name: torch.cat(parts) for name, parts in rows.items()})


def frozen(network: nn.Module, runtime: Runtime, call: Encoder | None = None) -> Encoder:
    """`network` as an encoder: eval mode, no gradient, under the run's autocast.

    The mode that each module was in comes back after every call, so that a network can be looked
    at in the middle of its training.

    Args:
        network: what is frozen.
        runtime: gives the autocast.
        call: the method of `network` that encodes; by default its forward.
    """
    run = call or network

    @torch.no_grad()
    def encode(view: Tensor) -> Tensor:
        modes = [(module, module.training) for module in network.modules()]
        network.eval()
        try:
            with runtime.autocast():
                output: Tensor = run(view)
            return output
        finally:
            for module, training in modes:
                module.training = training

    return encode


def raw_pixels(view: Tensor) -> Tensor:
    """The pixels themselves [N, 3, H, W] as features [N, 3 P], at `RAW_SIDE` at most."""
    if view.shape[-1] > RAW_SIDE:
        view = F.adaptive_avg_pool2d(view.float(), RAW_SIDE)
    return view.flatten(1)


def grey_once(pixels: Tensor) -> Tensor:
    """Raw pixels [N, 3 P] as [N, P] where all images are grey: repeats only cost time."""
    red, green, blue = pixels.chunk(3, dim=1)
    grey = torch.equal(red, green) and torch.equal(red, blue)
    return red.contiguous() if grey else pixels
