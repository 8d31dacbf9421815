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
def tiny(digits: Path) -> Callable[..., Recipe]:
    """`tiny(gradient="fastsiam")` → a recipe of 4 steps on digits, about a second."""

    def make(**settings: object) -> Recipe:
        small: dict[str, object] = {
            "backbone": "test_resnet",
            "projector": "mlp:layers=2,hidden_dim=32,out_dim=32",
            "predictor": "mlp:hidden_dim=8",
            "data.image_size": 16,
            "data.workers": 0,
            "dataset": str(digits),
            "training.batch_size": 16,
            "training.epochs": 1,
            "training.threads": 1,
            "training.precision": "fp32",
            "training.checkpoint_steps": 2,
            "logging.interval_steps": 1,
            "evaluation.online_epochs": 0,
            "evaluation.protocols": [],
            "evaluation.rank_samples": 48,
            "evaluation.baselines": False,
        }
        return Recipe.make("digits", None, {**small, **settings})

    return make
