"""SIGReg in real runs of a few steps, and what the package says that it supplies."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import simsiam_zoo as zoo
from simsiam_zoo.catalog import catalog
from simsiam_zoo.studies.plan import plan_study
from simsiam_zoo.studies.study import read_study

Killed = Callable[[int, zoo.Recipe, Path], None]
DISTRIBUTION = "simsiam-zoo-sigreg"
PARTS = {
    "projector": "mlp:layers=2,hidden_dim=32,out_dim=16,norm=hidden",
    "predictor": "none",
    "gradient": "view-mean:views=3",
    "loss": "sigreg:slices=32",
}


def test_a_run_descends_and_goes_on_to_the_bit_after_a_kill(
    tiny: Callable[..., zoo.Recipe], killed_at: Killed, tmp_path: Path
) -> None:
    recipe = tiny(**PARTS)
    whole = zoo.train(recipe, tmp_path / "whole", quiet=True)
    losses = [row["loss"] for row in whole.metrics if "loss" in row]
    assert len(losses) == 8
    assert 0 < losses[-1] < losses[0]
    killed_at(6, recipe, tmp_path / "cut")
    cut = zoo.train(recipe, tmp_path / "cut", resume=True, quiet=True)
    states = (run.model.state_dict() for run in (whole, cut))
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_the_list_of_names_leaves_torch_out() -> None:
    code = (
        "import sys, simsiam_zoo_sigreg.plugin as p; list(p.zoo_components());"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_package_supplies_what_its_readme_lists() -> None:
    mine = [entry for entry in catalog().entries() if entry.distribution == DISTRIBUTION]
    assert {(entry.kind, entry.name) for entry in mine} == {
        ("loss", "sigreg"),
        ("gradient", "view-mean"),
        ("preset", "sigreg-mnist-5k"),
        ("study", "tricks"),
    }


def test_the_studys_last_arm_is_the_preset_and_all_arms_choose_from_the_same_lr() -> None:
    name, study = read_study("tricks", None)
    plan = plan_study(name, study, "")
    assert [arm.label for arm in plan.arms] == [
        "SimSiam",
        "stop-gradient removed",
        "predictor removed",
        "projector removed",
        "SIGReg",
    ]
    assert not [arm.not_run for arm in plan.arms if arm.not_run]
    ours = plan.arms[-1].recipes[0]
    settings = {"training.epochs": ours.training.epochs}
    named = zoo.Recipe.make("sigreg-mnist-5k", None, settings)
    keys = ("backbone", "projector", "predictor", "gradient", "loss", "augmentation", "data")
    assert all(getattr(ours, key) == getattr(named, key) for key in keys)
    assert named.predictor.name == "none"
    lrs = [[each.substitution["optim.lr"] for each in arm.candidates] for arm in plan.arms]
    assert all(each == lrs[0] for each in lrs)
    assert len(lrs[0]) == 5
