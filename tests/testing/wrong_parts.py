"""Components of which each does one thing wrong, named after the check that is to find it."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from simsiam_zoo.components.augmentations import DigitsAugmentation
from simsiam_zoo.components.loggers import CsvLogger
from simsiam_zoo.data.image import ViewParams
from simsiam_zoo.data.shards import Dataset
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.evaluation.knn import KnnProtocol
from simsiam_zoo.exchange.export import ExportSource, SafetensorsFormat
from simsiam_zoo.model.siamese import GradientPolicy, Part
from simsiam_zoo.studies.launcher import LocalLauncher

SETTINGS: dict[str, Any] = {}
"""What the tests say of where things are."""


class Parameters(nn.Linear):
    def __init__(self, *, dim: int, width: int = 3) -> None:
        super().__init__(dim, dim)


class Shapes(nn.Linear):
    def __init__(self, *, in_dim: int) -> None:
        super().__init__(in_dim, 7)
        self.out_dim = 8


class Inputs(nn.Sequential):
    def __init__(self, *, dim: int) -> None:
        super().__init__(nn.LeakyReLU(inplace=True), nn.Linear(dim, dim))


class Gradients(nn.Linear):
    def __init__(self, *, dim: int) -> None:
        super().__init__(dim, dim)

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z.detach())


class InfiniteSlope(nn.Module):
    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return ((prediction - target) * 0).abs().sqrt().mean() + (prediction * target).mean()


class Ddp(nn.Linear):
    def __init__(self, *, dim: int) -> None:
        super().__init__(dim, dim)
        self.spare = nn.Linear(dim, dim)


class Autocast(nn.Linear):
    def __init__(self, *, in_dim: int) -> None:
        super().__init__(in_dim, 8)
        self.out_dim = 8

    def forward(self, y: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(y)


class ChannelsLast(nn.Linear):
    def __init__(self, *, image_size: int) -> None:
        super().__init__(3 * image_size**2, 16)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.view(len(x), -1))


class Compile(Part, nn.Linear):
    def __init__(self, *, dim: int) -> None:
        super().__init__(dim, dim)

    def forward(self, z: Tensor) -> Tensor:
        p = super().forward(z)
        return p.tanh() if torch.compiler.is_compiling() else p


class Seed(nn.Linear):
    def __init__(self, *, dim: int) -> None:
        super().__init__(dim, dim)
        noise = np.random.default_rng().normal(size=(dim, dim)).astype(np.float32)
        self.weight.data += torch.from_numpy(noise)


class State(nn.Linear):
    def __init__(self, *, dim: int) -> None:
        super().__init__(dim, dim)
        self.offset = torch.randn(dim)

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) + self.offset


class Copies(nn.Linear):
    def __init__(self, *, dim: int) -> None:
        super().__init__(dim, dim)
        self.lock = threading.Lock()


class OnePair(GradientPolicy):
    def forward(self, siamese: Any, batch: Any) -> Any:
        z1, z2 = (siamese.encode(x) for x in batch.views)
        return siamese.predict(z1), z2.detach()


class Thawing(GradientPolicy):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, siamese: Any, batch: Any) -> Any:
        z1, z2 = (siamese.encode(x) for x in batch.views)
        return [(self.scale * siamese.predict(z1), z2.detach())]

    def after_step(self, siamese: Any, output: Any, step: int, steps: int) -> None:
        self.scale.requires_grad_(True)


class Run(nn.Linear):
    """Works in small things, and not where it is trained: on larger batches, on wide features."""

    def __init__(self, *, in_dim: int) -> None:
        if in_dim > 96:
            raise RuntimeError(f"{in_dim} features are too many")
        super().__init__(in_dim, 8)
        self.out_dim = 8

    def forward(self, y: Tensor) -> Tensor:
        if len(y) > 8:
            raise RuntimeError(f"{len(y)} images are too many")
        return super().forward(y)


class _Drawn:
    def __init__(self) -> None:
        digits = {"min_scale": 0.6, "rotation": 0.0, "shear": 0.0}
        self.inner = DigitsAugmentation(**digits, brightness=0.1, contrast=0.1)


class Views(_Drawn):
    def sample(
        self, generator: np.random.Generator, view: int, size: tuple[int, int]
    ) -> ViewParams:
        return ViewParams((0, 0, 8, 8))


class Pixels(_Drawn):
    def sample(
        self, generator: np.random.Generator, view: int, size: tuple[int, int]
    ) -> ViewParams:
        return self.inner.sample(generator, view, size)

    def apply(self, image: np.ndarray, view: ViewParams, size: int) -> np.ndarray:
        return np.zeros((size, size, 3), np.float32)


class Draws(_Drawn):
    def sample(
        self, generator: np.random.Generator, view: int, size: tuple[int, int]
    ) -> ViewParams:
        self.drawn = getattr(self, "drawn", 0) + 1
        drawn = self.inner.sample(generator, view, size)
        return dataclasses.replace(drawn, flip=self.drawn > 4)


def samples() -> Dataset:
    return dataclasses.replace(open_shards(str(SETTINGS["shards"])), classes=("one", "two"))


def same_again() -> Dataset:
    SETTINGS["turn"] = turn = not SETTINGS.get("turn", False)
    both = open_shards(str(SETTINGS["shards"]))
    return both if turn else dataclasses.replace(both, train=both.test)


class Scores(KnnProtocol):
    def __init__(self) -> None:
        super().__init__(k=None, t=0.1)

    def __call__(self, bench: Any) -> Any:
        return [dataclasses.replace(f, top1=f.top1 / 2) for f in super().__call__(bench)]


class Rows(CsvLogger):
    def __init__(self) -> None:
        super().__init__(path="metrics.csv")

    def log(self, row: dict[str, Any]) -> None:
        super().log({"loss": row["loss"], "step": row["step"], "epoch": row.pop("epoch")})


class Jobs(LocalLauncher):
    def poll(self, job: str) -> int | None:
        code = super().poll(job)
        return code if code is None else 0


class Written(SafetensorsFormat):
    def code(self, source: ExportSource, path: Path) -> str:
        return super().code(source, path) + " * 1.5"
