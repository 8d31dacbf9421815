from __future__ import annotations

from collections.abc import Callable

import pytest

from simsiam_zoo import Recipe


@pytest.fixture
def tiny(tiny: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """`tiny(...)` → a recipe of 8 steps of a tiny ViT on digits, about a second."""

    def make(**settings: object) -> Recipe:
        vit: dict[str, object] = {
            "backbone": "vit:patch_size=8,embed_dim=24,depth=2,num_heads=2",
            "projector": "mlp:layers=3,hidden_dim=32,out_dim=32",
            "optim.name": "adamw",
            "optim.lr": 0.002,
            "optim.weight_decay": 0.1,
        }
        return tiny(**{**vit, **settings})

    return make
