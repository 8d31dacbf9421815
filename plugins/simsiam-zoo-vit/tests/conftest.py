from __future__ import annotations

from collections.abc import Callable

import pytest

from simsiam_zoo import Recipe


@pytest.fixture
def tiny() -> Callable[..., Recipe]:
    """`tiny(...)` → a recipe of 8 steps of a tiny ViT on digits, about a second."""

    def make(**settings: object) -> Recipe:
        small: dict[str, object] = {
            "backbone": "vit:patch_size=8,embed_dim=24,depth=2,num_heads=2",
            "projector": "mlp:layers=3,hidden_dim=32,out_dim=32",
            "predictor": "mlp:hidden_dim=8",
            "data.image_size": 16,
            "data.workers": 0,
            "training.batch_size": 160,
            "training.epochs": 1,
            "training.threads": 1,
            "training.precision": "fp32",
            "training.checkpoint_steps": 4,
            "optim.name": "adamw",
            "optim.lr": 0.002,
            "optim.weight_decay": 0.1,
            "logging.interval_steps": 1,
            "evaluation.online_epochs": 0,
            "evaluation.protocols": [],
            "evaluation.rank_samples": 48,
            "evaluation.baselines": False,
        }
        return Recipe.make("digits", None, {**small, **settings})

    return make
