"""Runs that a test stops, and the weights that they end with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.checkpoint import load_last
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.train import train

Run = Callable[..., tuple[Path, dict[str, Any]]]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state, _, _ = load_last(folder / "checkpoints")
    return state["siamese"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class _Cut(Exception):
    pass


def stop_after(recipe: Recipe, folder: Path, step: int) -> None:
    """Run until metrics of `step + 1` are due: they are written, and no checkpoint is."""

    class Cutting(Progress):
        def advance(self, done: int, text: str = "") -> None:
            if done > step:
                raise _Cut

    with pytest.raises(_Cut):
        train(recipe, folder, progress=Cutting())


class Listening(Progress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)
