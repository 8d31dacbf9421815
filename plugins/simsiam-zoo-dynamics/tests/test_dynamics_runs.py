"""The parts in real runs of a few steps, and what the package says that it supplies."""

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
DISTRIBUTION = "simsiam-zoo-dynamics"


@pytest.mark.parametrize("predictor", ["directset:alpha=0.3,every=3", "directcopy"])
def test_set_predictors_train(
    tiny: Callable[..., zoo.Recipe], tmp_path: Path, predictor: str
) -> None:
    run = zoo.train(tiny(predictor=predictor), tmp_path / "run", quiet=True)
    losses = [row["loss"] for row in run.metrics if "loss" in row]
    assert len(losses) == 8
    assert all(-1 <= loss < 0 for loss in losses)
    assert int(run.model.predictor.updates) == 8


def test_a_run_of_both_kinds_goes_on_to_the_bit_after_a_kill(
    tiny: Callable[..., zoo.Recipe], killed_at: Killed, tmp_path: Path
) -> None:
    recipe = tiny(predictor="directpred:every=2", gradient="guided-stop-gradient")
    whole = zoo.train(recipe, tmp_path / "whole", quiet=True)
    killed_at(7, recipe, tmp_path / "cut")
    cut = zoo.train(recipe, tmp_path / "cut", resume=True, quiet=True)
    states = [run.model.state_dict() for run in (whole, cut)]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    assert all(math.isfinite(row["loss"]) for row in whole.metrics if "loss" in row)
    weight = states[0]["predictor.weight"]
    assert not torch.equal(weight, torch.eye(len(weight)))


def test_the_list_of_names_leaves_torch_out() -> None:
    code = (
        "import sys, simsiam_zoo_dynamics.plugin as p; list(p.zoo_components());"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_package_supplies_what_its_readme_lists() -> None:
    mine = [entry for entry in catalog().entries() if entry.distribution == DISTRIBUTION]
    assert {(entry.kind, entry.name) for entry in mine} == {
        ("predictor", "directpred"),
        ("predictor", "directset"),
        ("predictor", "directcopy"),
        ("gradient", "guided-stop-gradient"),
    }
