from __future__ import annotations

from collections.abc import Callable

import pytest

from simsiam_zoo import Recipe


@pytest.fixture
def tiny() -> Callable[..., Recipe]:
    """`tiny(**{"evaluation.protocols": []})` → a recipe of 8 steps on digits, a second."""

    def make(**settings: object) -> Recipe:
        small: dict[str, object] = {
            "backbone": "test_resnet",
            "projector": "mlp:layers=2,hidden_dim=32,out_dim=32",
            "predictor": "mlp:hidden_dim=8",
            "data.image_size": 16,
            "data.workers": 0,
            "training.batch_size": 160,
            "training.epochs": 1,
            "training.threads": 1,
            "training.precision": "fp32",
            "training.checkpoint_steps": 4,
            "logging.interval_steps": 1,
            "evaluation.online_epochs": 0,
            "evaluation.protocols": [],
            "evaluation.rank_samples": 48,
            "evaluation.baselines": False,
        }
        return Recipe.make("digits", None, {**small, **settings})

    return make
