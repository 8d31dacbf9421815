"""BYOL in real runs of a few steps, and what the package says that it supplies."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import simsiam_zoo as zoo
from simsiam_zoo.catalog import catalog

Killed = Callable[[int, zoo.Recipe, Path], None]
DISTRIBUTION = "simsiam-zoo-byol"
BYOL = {
    "gradient": "momentum:tau=0.9",
    "loss": "mse",
    "projector": "byol:hidden_dim=64,out_dim=16",
    "predictor": "byol:hidden_dim=64",
    "augmentation": "byol:min_scale=0.5",
}


def test_a_run_goes_on_to_the_bit_after_a_kill_and_its_target_lags(
    tiny: Callable[..., zoo.Recipe], killed_at: Killed, tmp_path: Path
) -> None:
    recipe = tiny(**BYOL)
    whole = zoo.train(recipe, tmp_path / "whole", quiet=True)
    killed_at(6, recipe, tmp_path / "cut")
    cut = zoo.train(recipe, tmp_path / "cut", resume=True, quiet=True)
    states = [run.model.state_dict() for run in (whole, cut)]
    torch.testing.assert_close(*states, rtol=0, atol=0)

    model, start = whole.model, zoo.build(recipe)
    target, online, first = (
        torch.cat([p.detach().flatten() for p in network.parameters()])
        for network in (model.gradient.target.backbone, model.backbone, start.backbone)
    )
    assert 0 < (target - first).norm() < (online - first).norm()
    losses = [row["loss"] for row in whole.metrics if "loss" in row]
    assert len(losses) == 8
    assert all(0 <= loss <= 4 for loss in losses)


def test_at_the_start_the_target_is_the_encoder(tiny: Callable[..., zoo.Recipe]) -> None:
    model = zoo.build(tiny(**BYOL))
    for part in ("backbone", "projector"):
        copied = model.gradient.target.get_submodule(part).state_dict()
        torch.testing.assert_close(copied, model.get_submodule(part).state_dict(), rtol=0, atol=0)


def test_the_list_of_names_leaves_torch_out() -> None:
    code = (
        "import sys, simsiam_zoo_byol.plugin as p; list(p.zoo_components());"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_package_supplies_what_its_readme_lists() -> None:
    mine = [entry for entry in catalog().entries() if entry.distribution == DISTRIBUTION]
    assert [(entry.kind, entry.name) for entry in mine] == [
        ("projector", "byol"),
        ("predictor", "byol"),
        ("gradient", "momentum"),
        ("augmentation", "byol"),
        ("preset", "byol"),
        ("preset", "byol-mnist-5k"),
    ]


def test_the_presets_are_byol() -> None:
    paper = zoo.Recipe.make("byol", None, {"dataset.path": "."})
    assert (paper.projector.hidden_dim, paper.projector.out_dim) == (4096, 256)
    assert (paper.predictor.name, paper.predictor.hidden_dim) == ("byol", 4096)
    assert (paper.gradient.tau, paper.gradient.schedule) == (0.99, "cosine")
    assert (paper.optim.name, paper.optim.lr, paper.optim.weight_decay) == ("lars", 0.45, 1e-6)
    assert paper.optim.part("predictor").schedule == "cosine"
    assert paper.augmentation.name == "byol"
    assert (paper.augmentation.interpolation, paper.augmentation.brightness_offset) == (
        "bicubic",
        True,
    )
    assert (paper.optim.lr_in_momentum, paper.loss.scale) == (False, 2.0)
    small, plain = zoo.Recipe.make("byol-mnist-5k"), zoo.Recipe.make("mnist-5k")
    assert (small.gradient.name, small.loss.name) == ("momentum", "mse")
    same = ("backbone", "projector", "predictor", "augmentation", "dataset", "training", "optim")
    assert all(getattr(small, key) == getattr(plain, key) for key in same)
