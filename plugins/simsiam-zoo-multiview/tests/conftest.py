from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from simsiam_zoo import Recipe
from simsiam_zoo.components.datasets import digit_samples
from simsiam_zoo.plugin import pack_dataset


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 of scikit-learn's digits."""
    folder = tmp_path_factory.mktemp("digits")
    pack_dataset(folder, {"train": digit_samples(64)}, tuple(map(str, range(10))))
    return folder


@pytest.fixture
def tiny(tiny: Callable[..., Recipe], digits: Path) -> Callable[..., Recipe]:
    """`tiny(gradient="fastsiam")` → a recipe of 4 steps on digits, about a second."""

    def make(**settings: object) -> Recipe:
        few: dict[str, object] = {
            "dataset": str(digits),
            "training.batch_size": 16,
            "training.checkpoint_steps": 2,
        }
        return tiny(**{**few, **settings})

    return make
