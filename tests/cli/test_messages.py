"""What people type by mistake: the message says the way out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import simsiam_zoo.cli as cli
from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe.lock import read_lock
from simsiam_zoo.runtime.folders import cache_dir


def refused(*words: str) -> str:
    with pytest.raises(InputError) as error:
        cli.root.main([*words], standalone_mode=False)
    return str(error.value)


def test_a_component_where_a_kind_belongs_is_told_with_its_kinds() -> None:
    text = refused("show", "mlp")
    assert "simsiam-zoo show projector mlp or simsiam-zoo show predictor mlp" in text
    assert "vgg16 is a backbone: simsiam-zoo list backbone vgg16" in refused("list", "vgg16")
    assert "The kinds are" in refused("show", "xyz", "mlp")
    assert "simsiam-zoo list KIND 'g*'" in refused("list", "--kind", "predictors", "g*")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["predictors", "xyz*"], "No name of a predictor matches xyz*. All: simsiam-zoo list"),
        (["backbones", "resnet81*"], "matches resnet81*. Near are resnet18"),
        (["losses", "--pretrained"], "There is no name of a loss with pretrained weights."),
    ],
)
def test_a_list_of_nothing_says_what_was_not_found(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.root.main(["list", *words], standalone_mode=False)
    assert says in capsys.readouterr().out
    cli.root.main(["list", *words, "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == []


def test_data_that_is_a_path_without_its_dot_or_a_recipe(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FASHION").mkdir()
    (tmp_path / "x.toml").write_text("")
    text = refused("train", "--data", "FASHION", "--dry-run")
    assert text.startswith("unknown dataset 'FASHION'")
    assert "There is a folder of that name: ./FASHION." in text
    assert "--recipe ./x.toml" in refused("train", "--data", "./x.toml", "--dry-run")
    assert "of that name" not in refused("train", "--data", "NOSUCH", "--dry-run")


def test_a_study_where_a_run_belongs_is_told_with_its_report_and_a_run(tmp_path: Path) -> None:
    run = tmp_path / "arms" / "base" / "seed0" / "run"
    run.mkdir(parents=True)
    (run / "recipe.toml").write_text("")
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(InputError, match="there is no run in") as error:
        read_lock(tmp_path)
    assert f"simsiam-zoo report {tmp_path}" in str(error.value.hint)


def test_a_run_that_is_named_without_runs_is_found_for_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "my run").mkdir(parents=True)
    (tmp_path / "runs" / "my run" / "recipe.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no run in my run(.|\n)*There is one in 'runs/my run'"):
        read_lock(Path("my run"))
    with pytest.raises(InputError, match="lists the runs"):
        read_lock(Path("runs"))


HOMELESS = """
import os, pwd, sys
def nobody(*_):
    raise KeyError("no such user")
pwd.getpwuid = nobody  # as in a container that is run with a user id of its own
from simsiam_zoo.cli import main
main(sys.argv[1:])
"""


def homeless(*words: str) -> subprocess.CompletedProcess[str]:
    gone = {"HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "SIMSIAM_ZOO_CACHE"}
    env = {key: value for key, value in os.environ.items() if key not in gone}
    command = [sys.executable, "-c", HOMELESS, *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def test_without_a_home_folder_names_are_listed_and_the_cache_is_asked_for() -> None:
    assert homeless("list", "losses").returncode == 0
    doctor = homeless("doctor", "--no-run", "--json")
    checks = {check["name"]: check for check in json.loads(doctor.stdout)["checks"]}
    assert "no home folder" in checks["cache"]["said"]
    assert "SIMSIAM_ZOO_CACHE" in checks["cache"]["hint"]


def test_the_home_folder_of_nobody_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", "~nosuch/cache")
    with pytest.raises(InputError, match="~nosuch/cache: the home folder is not known"):
        cache_dir()
    for words in (
        ["list", "--plugin", "~nosuch/x.py"],
        ["inspect", "~nosuch/x"],
        ["pack", "~nosuch/x", "y"],
    ):
        assert "~nosuch/x" in refused(*words)
