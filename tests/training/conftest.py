from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import tiny_recipe

from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.train import train


@pytest.fixture
def tiny(digit_shards: Path) -> Callable[..., Recipe]:
    """`tiny({"optim.lr": 1.0})` → the recipe of a run that takes a second."""
    return lambda settings=None: tiny_recipe(digit_shards, settings)


@pytest.fixture
def run(tiny: Callable[..., Recipe], tmp_path: Path) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """`run(settings, name="a")` → the folder and the result of a tiny run."""

    def go(
        settings: dict[str, object] | None = None, name: str = "run", resume: bool = False
    ) -> tuple[Path, dict[str, Any]]:
        folder = tmp_path / name
        return folder, train(tiny(settings), folder, resume=resume, progress=Progress())

    return go
