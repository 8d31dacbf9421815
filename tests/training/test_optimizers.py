"""Every optimiser in real runs: its settings arrive, and its state goes on where it was cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.checkpoint import load_last
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.setup import prepare
from simsiam_zoo.training.train import train

SETTINGS: dict[str, dict[str, object]] = {
    "sgd": {"optim.lr": 1.0},
    "lars": {"optim.lr": 100.0},
    "adamw": {"optim.lr": 0.05},
}


class _Cut(Exception):
    pass


class Cutting(Progress):
    """Ends the run like a crash, when the figures of step 2 are due and before it is saved."""

    def advance(self, done: int, text: str = "") -> None:
        if done == 2:
            raise _Cut


@pytest.mark.parametrize("name", SETTINGS)
def test_an_interrupted_run_ends_with_the_same_weights(
    name: str, tiny: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = tiny(
        {
            "optim.name": name,
            "optim.exclude_norm_and_bias": True,
            "optim.parts.predictor.exclude_norm_and_bias": False,
            "optim.warmup_epochs": 0.5,
            "training.epochs": 1,
            "training.batch_size": 32,
            "training.checkpoint_steps": 1,
            "evaluation.protocols": [],
            **SETTINGS[name],
        }
    )
    train(recipe, tmp_path / "whole", progress=Progress())
    with pytest.raises(_Cut):
        train(recipe, tmp_path / "cut", progress=Cutting())
    assert load_last(tmp_path / "cut" / "checkpoints")[0]["step"] == 1
    train(recipe, tmp_path / "cut", resume=True, progress=Progress())
    whole, cut = (
        load_last(tmp_path / folder / "checkpoints")[0]["siamese"] for folder in ("whole", "cut")
    )
    start = prepare(recipe).siamese.state_dict()
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[key], cut[key]) for key in whole)
    assert not all(torch.equal(whole[key], start[key]) for key in whole)


def test_the_recipes_settings_reach_the_groups(tiny: Callable[..., Recipe]) -> None:
    recipe = tiny(
        {
            "optim.name": "lars",
            "optim.trust_coefficient": 0.02,
            "optim.momentum": 0.7,
            "optim.weight_decay": 0.1,
            "optim.exclude_norm_and_bias": True,
            "optim.parts.predictor": {"exclude_norm_and_bias": False, "weight_decay": 0.2},
        }
    )
    groups = prepare(recipe).optimizer.param_groups
    assert all((group["momentum"], group["trust_coefficient"]) == (0.7, 0.02) for group in groups)
    seen = {(group["part"], group["weight_decay"], group["adapt"]) for group in groups}
    assert seen == {
        ("backbone", 0.1, True),
        ("backbone", 0.0, False),
        ("projector", 0.1, True),
        ("projector", 0.0, False),
        ("predictor", 0.2, True),
    }
    for group in groups:
        assert all((p.ndim <= 1) != group["adapt"] for p in group["params"]) or (
            group["part"] == "predictor"
        )
