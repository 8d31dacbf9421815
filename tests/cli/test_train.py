"""`simsiam-zoo train` as a user types it, in a real process."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from simsiam_zoo.recipe import Recipe

TINY = [
    *("--preset", "digits", "--backbone", "test_resnet"),
    *("--epochs", "1", "--batch-size", "256", "--seed", "3"),
    *("--projector", "mlp:layers=1,out_dim=32", "--predictor", "mlp:hidden_dim=8"),
    *("--set", "data.image_size=16", "--set", "data.workers=0", "--set", "training.threads=1"),
    *("--set", "evaluation.rank_samples=64", "--set", "evaluation.baselines=false"),
]
"""Five steps on scikit-learn's digits, in a few seconds."""


def test_a_run_ends_with_a_table_a_verdict_and_the_paths(zoo, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "nonsense")  # a notebook sets one for its own plots
    done = zoo("train", *TINY, "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "Top-1 on 450 test images" in done.stdout
    assert "knn (k=20, t=0.1)" in done.stdout
    assert re.search(r"^Verdict: (learned|no-gain)", done.stdout, re.MULTILINE)
    for path in re.findall(r"^  (\S+\.\w+) ", done.stdout, re.MULTILINE):
        assert (tmp_path / "run" / path).exists(), path
    first = done.stderr.splitlines()[0]
    assert first == "run: preset digits, backbone test_resnet, data digits, seed 3"
    assert "\x1b" not in done.stdout + done.stderr  # piped: no control codes
    assert "\r" not in done.stdout + done.stderr


def test_ctrl_c_while_torch_is_loaded_ends_with_a_word_and_leaves_nothing(
    install_plugins, tmp_path
):
    words = [sys.executable, "-m", "simsiam_zoo", "train", *TINY, "--out", "run"]
    with subprocess.Popen(
        words, env=install_plugins(), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        first = [run.stderr.readline(), run.stderr.readline()]
        assert first[1] == "loading torch ...\n", first
        run.send_signal(signal.SIGINT)
        assert run.stderr.read().strip() == "Interrupted."  # below the terminal's ^C
    assert run.returncode == 130
    assert not (tmp_path / "run").exists()


def test_json_is_all_there_is_on_stdout(zoo_here, tmp_path):
    done = zoo_here("train", *TINY, "--out", "run", "--json", "--quiet")
    assert done.stderr == ""
    assert json.loads(done.stdout)["verdict"] in {"learned", "no-gain"}
    assert json.loads(done.stdout)["folder"] == "run"


def test_a_third_partys_projector_trains_and_is_locked(zoo, tmp_path):
    arguments = [*TINY, "--projector", "swish:hidden_dim=48", "--out", "run"]
    done = zoo("train", *arguments, plugins=["swish-zoo"])
    assert done.returncode == 0, done.stderr
    lock = tomllib.loads((tmp_path / "run" / "lock.toml").read_text())
    part = lock["parts"]["projector"]
    assert part["id"] == "swish-zoo/swish"
    assert part["distribution"] == "swish-zoo"
    assert part["params"]["hidden_dim"] == 48

    gone = zoo("train", "--resume", "run")  # uninstalled since
    assert gone.returncode == 3
    assert "pip install swish-zoo==0.3.0" in gone.stderr
    assert "Traceback" not in gone.stderr


def test_a_broken_plugin_costs_a_line_and_nothing_else(zoo):
    done = zoo("train", *TINY, "--dry-run", plugins=["crash-zoo", "exit-zoo"])
    assert done.returncode == 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("simsiam-zoo: ")]
    assert len(lines) == 2
    assert "crash-zoo 1.0.0 is broken" in lines[0]
    assert "exit-zoo 2.0.0 is broken" in lines[1]


def test_a_dry_run_can_be_fed_back_in_and_trains_nothing(zoo_here, tmp_path):
    first = zoo_here("train", *TINY, "--lr", "0.3", "--dry-run")
    assert first.returncode == 0, first.stderr
    (tmp_path / "recipe.toml").write_text(first.stdout)
    second = zoo_here("train", "--recipe", "recipe.toml", "--dry-run")
    assert second.stdout == first.stdout
    assert Recipe.make(None, tmp_path / "recipe.toml").optim.lr == 0.3
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]
    assert "# steps per epoch: 5" in first.stdout


def test_a_dry_run_without_the_data_says_unknown_and_counts_the_papers_parameters(zoo_here):
    done = zoo_here("train", "--preset", "imagenet", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["steps_per_epoch"] is None
    # ResNet-50 without its fc; three fc without bias with two affine BN; 2048-512-2048 with BN.
    assert told["parameters"] == {
        "backbone": 23_508_032,
        "projector": 3 * 2048 * 2048 + 2 * 2 * 2048,
        "predictor": 2048 * 512 + 2 * 512 + 512 * 2048 + 2048,
        "gradient": 0,
        "loss": 0,
    }
    plain = zoo_here("train", "--preset", "imagenet", "--dry-run")
    assert "# steps per epoch: unknown" in plain.stdout


WRONG = {
    "a misspelt backbone": (["--backbone", "densnet121"], "densenet121"),
    "a misspelt parameter": (["--predictor", "mlp:hiden_dim=3"], "hidden_dim"),
    "a parameter of another type": (["--predictor", "mlp:hidden_dim=x"], "an int >= 1"),
    "a parameter out of range": (["--predictor", "mlp:hidden_dim=0"], "an int >= 1"),
    "a misspelt key": (["--set", "training.epohcs=3"], "epochs"),
    "a misspelt table": (["--set", "traning.epochs=3"], "training"),
    "an epoch number out of range": (["--epochs", "0"], "training.epochs is >= 1"),
    "no number": (["--epochs", "many"], "training.epochs is"),
    "an lr that is no number": (["--lr", "nan"], "optim.lr"),
    "a misspelt preset": (["--preset", "imagnet"], "imagenet"),
    "missing data": (["--data", "./nowhere"], "./nowhere"),
    "remote data": (["--data", "pipe:cat x.tar"], "pipe:"),
    "no such precision": (["--precision", "fp17"], "fp16"),
    "no such protocol": (["--set", 'evaluation.protocols=["knnn"]'], "knn"),
    "no such device": (["--device", "cuda:77"], "CUDA device"),
    "a batch larger than the data": (["--batch-size", "5000"], "at most 1347"),
    "no such recipe": (["--recipe", "none.toml"], "none.toml"),
    "the same key twice": (["--predictor", "none", "--set", "predictor=mlp"], "twice"),
    "an unwritable folder": (["--out", "/proc/run"], "cannot be written"),
    "a file for a folder": (["--out", "file"], "no empty folder"),
    "nothing to resume": (["--resume", "nowhere"], "no run in nowhere"),
    "an unknown option": (["--epocs", "3"], "--epochs"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_ends_with_2_one_message_and_nothing_written(zoo_here, tmp_path, case):
    arguments, expected = WRONG[case]
    (tmp_path / "file").write_text("")
    if "--resume" not in arguments and "--preset" not in arguments:
        arguments = ["--preset", "digits", *arguments]
    done = zoo_here("train", *arguments)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_truncated_checkpoint_ends_with_4(zoo_here, tmp_path):
    recipe = Path(tmp_path / "run")
    assert zoo_here("train", *TINY, "--out", "run").returncode == 0
    (recipe / "result.json").unlink()
    for path in recipe.glob("checkpoints/step-*.pt"):
        path.write_bytes(path.read_bytes()[:5000])
    done = zoo_here("train", "--resume", "run")
    assert done.returncode == 4
    assert "is damaged" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (recipe / "result.json").exists()


def test_resume_takes_its_recipe_from_the_run(zoo_here, tmp_path):
    assert zoo_here("train", *TINY, "--out", "run").returncode == 0
    (tmp_path / "run" / "result.json").unlink()
    refused = zoo_here("train", "--resume", "run", "--lr", "0.1")
    assert refused.returncode == 2
    assert "optim.lr decides what the run computes" in refused.stderr
    again = zoo_here("train", "--resume", "run", "--set", "data.workers=1")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "run" / "result.json").exists()


def test_a_run_that_diverges_ends_with_5(zoo_here):
    done = zoo_here("train", *TINY, "--loss", "mse:normalize=false", "--lr", "1e30", "--out", "run")
    assert done.returncode == 5
    assert "diverged" in done.stderr
    assert "Traceback" not in done.stderr
