"""A small network with images for it, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from simsiam_zoo.plugin import Features, FeatureSplits, NetworkImages
from simsiam_zoo.runtime.device import Runtime

CLASSES, TRAIN, TEST = 3, 50, 30


class Small(nn.Module):
    """[N, 3, 2, 2] → [N, 5]; its tokens are [N, 4, 8]."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.layer, self.embed = nn.Linear(12, 5), nn.Linear(3, 8)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.drop(x.flatten(1)))

    def forward_features(self, x: Tensor) -> Tensor:
        return self.embed(x.flatten(2).transpose(1, 2))


def draw(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images [count, 3, 2, 2] and labels of classes that overlap."""
    labels = torch.arange(count) % CLASSES
    centers = torch.randn(CLASSES, 3, 2, 2, generator=torch.Generator().manual_seed(9))
    noise = torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    return centers[labels] + noise, labels


def views(epoch: int, batch: int, rank: int = 0, world: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    """An epoch's batches, of new noise; this rank's share of each."""
    x, labels = draw(TRAIN, 100 + epoch)
    share = batch // world
    for start in range(0, TRAIN - batch + 1, batch):
        rows = slice(start + rank * share, start + (rank + 1) * share)
        yield x[rows], labels[rows]


def splits(
    network: nn.Module,
    folder: Path | None = None,
    rank: int = 0,
    world: int = 1,
    fail_in: int | None = None,
) -> FeatureSplits:
    """The network with its images; an epoch is torn off after its first batch."""

    def train(epoch: int, batch: int, *_: float) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
        for number, (x, labels) in enumerate(views(epoch, batch, rank, world)):
            if epoch == fail_in and number:
                raise KeyboardInterrupt
            yield zip(x.split(5), labels.split(5), strict=True)  # in parts, as of large batches

    def test() -> Iterator[tuple[Tensor, Tensor]]:
        x, _ = draw(TEST, 1)
        for rows in torch.arange(TEST).split(10)[rank::world]:
            yield x[rows], rows

    network.eval()
    runtime = Runtime(torch.device("cpu"), "fp32", 1)
    images = NetworkImages(lambda: network, (3, 2, 2), TRAIN, train, test, runtime)
    with torch.no_grad():
        bank, queries = (
            Features(network(x), labels) for x, labels in (draw(TRAIN, 0), draw(TEST, 1))
        )
    return FeatureSplits(bank, queries, CLASSES, folder=folder, images=images)
