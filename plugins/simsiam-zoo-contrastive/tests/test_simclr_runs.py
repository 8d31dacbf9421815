"""SimCLR in real runs of a few steps, and what the package says that it supplies."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import simsiam_zoo as zoo
from simsiam_zoo.catalog import catalog

Killed = Callable[[int, zoo.Recipe, Path], None]
DISTRIBUTION = "simsiam-zoo-contrastive"
SIMCLR = {"loss": "nt-xent:temperature=0.5", "predictor": "none", "gradient": "none:sides=one"}


def test_a_run_descends_and_goes_on_to_the_bit_after_a_kill(
    tiny: Callable[..., zoo.Recipe], killed_at: Killed, tmp_path: Path
) -> None:
    recipe = tiny(**SIMCLR)
    whole = zoo.train(recipe, tmp_path / "whole", quiet=True)
    losses = [row["loss"] for row in whole.metrics if "loss" in row]
    assert len(losses) == 8
    assert losses[0] < 1.2 * math.log(2 * 160 - 1)  # at first no view is told from another
    assert losses[-1] < losses[0] - 0.1
    killed_at(6, recipe, tmp_path / "cut")
    cut = zoo.train(recipe, tmp_path / "cut", resume=True, quiet=True)
    states = (run.model.state_dict() for run in (whole, cut))
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_every_substitution_of_the_study_trains(
    tiny: Callable[..., zoo.Recipe], tmp_path: Path
) -> None:
    arms = {
        "predictor": {"predictor": "mlp:hidden_dim=8", "gradient": "none"},
        "both": {"predictor": "mlp:hidden_dim=8", "gradient": "stop-gradient"},
    }
    for name, arm in arms.items():
        run = zoo.train(tiny(**{**SIMCLR, **arm}), tmp_path / name, quiet=True)
        assert run.verdict != "diverged"
        assert all(math.isfinite(row["loss"]) for row in run.metrics if "loss" in row)


def test_the_list_of_names_leaves_torch_out() -> None:
    code = (
        "import sys, simsiam_zoo_contrastive.plugin as p; list(p.zoo_components());"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_package_supplies_what_its_readme_lists() -> None:
    mine = [entry for entry in catalog().entries() if entry.distribution == DISTRIBUTION]
    assert {entry.name for entry in mine} == {
        "nt-xent",
        "simclr",
        "simclr-mnist-5k",
        "simclr-predictor",
    }


def test_the_presets_are_simclr() -> None:
    paper = zoo.Recipe.make("simclr", None, {"dataset.path": "."})
    assert (paper.backbone.name, paper.projector.out_dim) == ("resnet50", 128)
    assert (paper.optim.name, paper.optim.lr, paper.optim.weight_decay) == ("lars", 0.3, 1e-6)
    assert paper.optim.lr * paper.training.batch_size / 256 == pytest.approx(4.8)
    assert paper.optim.exclude_norm_and_bias
    assert (paper.optim.lr_in_momentum, paper.augmentation.interpolation) == (True, "bicubic")
    small = zoo.Recipe.make("simclr-mnist-5k")
    plain = zoo.Recipe.make("mnist-5k-resnet10t")
    assert (small.loss.temperature, small.gradient.sides) == (0.5, "one")
    for recipe in (paper, small):
        names = (recipe.loss.name, recipe.predictor.name, recipe.gradient.name)
        assert names == ("nt-xent", "none", "none")
    same = ("backbone", "projector", "augmentation", "dataset", "data", "training", "optim")
    assert all(getattr(small, key) == getattr(plain, key) for key in same)
