"""Both methods in real runs of a few steps, and what the package says that it supplies."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import simsiam_zoo as zoo
from simsiam_zoo.catalog import catalog

Killed = Callable[[int, zoo.Recipe, Path], None]
DISTRIBUTION = "simsiam-zoo-redundancy"
PARTS = {
    "projector": "mlp:layers=2,hidden_dim=32,out_dim=32,norm=hidden",
    "predictor": "none",
    "gradient": "none:sides=one",
}
LOSSES = {
    "barlow-twins": "barlow-twins:scale=0.05",
    "vicreg": "vicreg:invariance=1,variance=1,covariance=0.04",
}


def losses(run: zoo.Run) -> list[float]:
    return [row["loss"] for row in run.metrics if "loss" in row]


def test_barlow_twins_descends(tiny: Callable[..., zoo.Recipe], tmp_path: Path) -> None:
    run = zoo.train(tiny(**PARTS, loss=LOSSES["barlow-twins"]), tmp_path / "run", quiet=True)
    assert len(losses(run)) == 8
    assert 0 < losses(run)[-1] < losses(run)[0]


def test_vicreg_descends_and_goes_on_to_the_bit_after_a_kill(
    tiny: Callable[..., zoo.Recipe], killed_at: Killed, tmp_path: Path
) -> None:
    recipe = tiny(**PARTS, loss=LOSSES["vicreg"])
    whole = zoo.train(recipe, tmp_path / "whole", quiet=True)
    assert 0 < losses(whole)[-1] < losses(whole)[0]
    killed_at(6, recipe, tmp_path / "cut")
    cut = zoo.train(recipe, tmp_path / "cut", resume=True, quiet=True)
    states = (run.model.state_dict() for run in (whole, cut))
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_the_list_of_names_leaves_torch_out() -> None:
    code = (
        "import sys, simsiam_zoo_redundancy.plugin as p; list(p.zoo_components());"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_package_supplies_what_its_readme_lists() -> None:
    mine = [entry for entry in catalog().entries() if entry.distribution == DISTRIBUTION]
    presets = {f"{name}{end}" for name in LOSSES for end in ("", "-mnist-5k")}
    assert {(entry.kind, entry.name) for entry in mine} == {
        *(("loss", name) for name in LOSSES),
        *(("preset", name) for name in presets),
    }


@pytest.mark.parametrize("name", LOSSES)
def test_the_presets_are_the_papers(name: str) -> None:
    paper = zoo.Recipe.make(name, None, {"dataset.path": "."})
    projector = (paper.projector.layers, paper.projector.hidden_dim, paper.projector.out_dim)
    assert projector == (3, 8192, 8192)
    assert (paper.optim.name, paper.optim.lr, paper.training.batch_size) == ("lars", 0.2, 2048)
    assert paper.augmentation.name == "byol"
    # Crops are bicubic and brightness a factor in both authors' code, and LARS's lr stands outside.
    views = paper.augmentation
    assert (views.interpolation, views.brightness_offset) == ("bicubic", False)
    optim, peak = paper.optim, 0.2 * 2048 / 256
    assert (optim.lr_in_momentum, optim.exclude_norm_and_bias) == (False, True)
    norms, final = (0.0048, peak / 1000) if name == "barlow-twins" else (0.2, 0.002)
    own = optim.part("backbone")
    assert optim.lr * own.lr_scale * own.norm_and_bias_lr_scale == pytest.approx(norms)
    assert peak * optim.final_lr_scale == pytest.approx(final)
    small, plain = zoo.Recipe.make(f"{name}-mnist-5k"), zoo.Recipe.make("mnist-5k-resnet10t")
    for recipe in (paper, small):
        parts = (recipe.loss.name, recipe.predictor.name, recipe.gradient.name)
        assert parts == (name, "none", "none")
        assert (recipe.projector.norm, recipe.gradient.sides) == ("hidden", "one")
    same = ("backbone", "augmentation", "dataset", "data", "training", "optim")
    assert all(getattr(small, key) == getattr(plain, key) for key in same)
    if name == "vicreg":
        loss = paper.loss
        assert (loss.invariance, loss.variance, loss.covariance, loss.gamma) == (25, 25, 1, 1)
        ratios = [
            getattr(small.loss, key) / getattr(loss, key)
            for key in ("invariance", "variance", "covariance")
        ]
        assert ratios == pytest.approx([0.04] * 3)
    else:
        assert (paper.loss.lambd, paper.loss.scale) == (0.0051, 1.0)


def test_two_processes_train_to_the_verdict(
    tiny: Callable[..., zoo.Recipe], tmp_path: Path
) -> None:
    """The loss gathers, and at the end the first rank alone builds the untrained network."""
    recipe = tiny(**PARTS, loss=LOSSES["vicreg"], **{"evaluation.baselines": True})
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "simsiam_zoo", "train", "--recipe", str(tmp_path / "recipe.toml")]
    command += ["--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "result.json").is_file()
