"""`--locked` as a user types it, with a plugin that comes and goes."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

LEAVE_A_RECIPE_AND_A_LOCK = """
import pathlib, tomli_w
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import make_lock
recipe = Recipe.make("digits", None, {"projector": "swish:hidden_dim=32"})
pathlib.Path("recipe.toml").write_text(recipe.to_toml())
lock = make_lock(recipe, "0123", {"precision": "fp32"})
pathlib.Path("lock.toml").write_text(tomli_w.dumps(lock))
"""
AGAIN = ("train", "--recipe", "recipe.toml", "--locked", "lock.toml", "--out", "new")


@pytest.fixture
def lock(install_plugins, tmp_path: Path) -> dict[str, Any]:
    """What a run with a third party's projector leaves: recipe.toml and lock.toml."""
    command = [sys.executable, "-c", LEAVE_A_RECIPE_AND_A_LOCK]
    subprocess.run(command, env=install_plugins("swish-zoo"), cwd=tmp_path, check=True)
    return tomllib.loads((tmp_path / "lock.toml").read_text())


def test_other_data_ends_with_2_once_it_is_open(zoo, lock, tmp_path):
    done = zoo(*AGAIN, "--device", "cpu", plugins=["swish-zoo"])
    assert done.returncode == 2
    assert 'data.digest: "0123" there' in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_component_that_is_missing_ends_with_3_and_of_another_version_with_2(zoo, lock, tmp_path):
    done = zoo(*AGAIN)
    assert done.returncode == 3
    assert "the run's projector is swish-zoo/swish, and swish-zoo is not here" in done.stderr
    assert "python -m pip install swish-zoo==0.3.0" in done.stderr
    lock["parts"]["projector"]["version"] = "0.2.0"
    lock["code"]["swish-zoo"] = "version 0.2.0"
    (tmp_path / "lock.toml").write_text(tomli_w.dumps(lock))
    done = zoo(*AGAIN, plugins=["swish-zoo"])
    assert done.returncode == 2
    assert 'projector.version: "0.2.0" there, "0.3.0" here' in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_component_that_is_installed_and_disabled_is_not_a_matter_of_pip(zoo, lock):
    done = zoo(*AGAIN, plugins=["swish-zoo"], SIMSIAM_ZOO_PLUGINS="")
    assert done.returncode == 3
    assert "swish-zoo 0.3.0 is disabled: SIMSIAM_ZOO_PLUGINS leaves it out" in done.stderr
    assert "pip" not in done.stderr


def test_another_recipe_or_other_software_ends_with_2(zoo, lock, tmp_path):
    done = zoo(*AGAIN, "--epochs", "3", "--projector", "none", plugins=["swish-zoo"])
    assert done.returncode == 2
    assert "training.epochs: 24 there, 3 here; projector.distribution" in done.stderr
    lock["software"]["timm"] = "1.0.15"
    (tmp_path / "lock.toml").write_text(tomli_w.dumps(lock))
    done = zoo(*AGAIN, plugins=["swish-zoo"])
    assert done.returncode == 2
    assert "python -m pip install 'timm==1.0.15'" in done.stderr
    assert not (tmp_path / "new").exists()
