from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import simsiam_zoo as zoo
from simsiam_zoo import Recipe
from simsiam_zoo.studies.arms import make_arms
from simsiam_zoo.studies.study import read_study

FIGURES = {
    "cifar10-lightly": 90.4,
    "cifar10-lightly-200": 81.9,
    "cifar10-solo": 90.5,
    "cifar100-solo": 66.0,
    "imagenette-lightly": 87.2,
    "imagenet100-solo": 78.7,
}
SMALL: dict[str, object] = {
    "backbone": "test_resnet",
    "projector.hidden_dim": 32,
    "projector.out_dim": 32,
    "predictor.hidden_dim": 8,
    "dataset": "digits",
    "data.image_size": 16,
    "data.workers": 0,
    "training.epochs": 1,
    "training.batch_size": 1347,
    "training.threads": 1,
    "training.precision": "fp32",
    "optim.warmup_epochs": 0.0,
    "evaluation.online_epochs": 0,
    "evaluation.protocols": [],
    "evaluation.rank_samples": 48,
    "evaluation.baselines": False,
}


def command(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "simsiam_zoo", *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "lr", "batch", "epochs", "decay", "predictor"),
    [
        ("cifar10-lightly", 0.06, 512, 800, 5e-4, "cosine"),
        ("cifar10-lightly-200", 0.06, 128, 200, 5e-4, "cosine"),
        ("cifar10-solo", 0.5, 256, 1000, 1e-5, "constant"),
        ("cifar100-solo", 0.5, 256, 1000, 1e-5, "constant"),
        ("imagenette-lightly", 0.06, 256, 800, 5e-4, "cosine"),
        ("imagenet100-solo", 0.5, 256, 400, 1e-5, "constant"),
    ],
)
def test_the_optimiser_is_the_sources(
    name: str, lr: float, batch: int, epochs: int, decay: float, predictor: str
) -> None:
    """The lr that is used, whatever it is the base of."""
    recipe = Recipe.make(name)
    training, optim = recipe.training, recipe.optim
    assert (training.batch_size, training.epochs) == (batch, epochs)
    assert optim.lr * batch / 256 == pytest.approx(lr)
    assert (optim.name, optim.momentum, optim.weight_decay) == ("sgd", 0.9, decay)
    assert (optim.schedule, optim.part("predictor").schedule) == ("cosine", predictor)
    assert optim.warmup_epochs == (10 if "solo" in name else 0)
    layers = 2 if name.startswith("cifar10-lightly") else 3
    assert recipe.projector.params["layers"] == layers
    assert recipe.projector.params["output_affine"] == (layers == 2)
    views = recipe.augmentation.params
    assert views["min_scale"] == (0.08 if "solo" in name else 0.2)
    assert [views[key] for key in ("brightness", "contrast", "saturation", "hue")] == [
        0.4, 0.4, 0.4, 0.1,
    ]  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_a_step_of_each_preset(name: str, tmp_path: Path) -> None:
    run = zoo.train(Recipe.make(name, None, SMALL), tmp_path / "run")
    assert run.metrics[-1]["step"] == 1


def test_the_figures_are_listed_and_printed_beside_a_runs_own(tmp_path: Path) -> None:
    rows = json.loads(command("list", "preset", "--json"))
    stated = {row["name"]: row.get("expected", {}).get("figure") for row in rows}
    assert FIGURES.items() <= stated.items()
    texts = [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in SMALL.items()
    ]
    flags = [word for text in texts for word in ("--set", text)]
    printed = command(
        "train", "--preset", "cifar10-lightly", "--out", str(tmp_path / "run"), "--quiet", *flags
    )
    assert "Published: 90.4 % by kNN, k = 200, t = 0.1 (lightly)" in printed
    assert "unmeasured here" in printed
    assert "this run has other settings: backbone.drop_path_rate, backbone.name" in printed


def test_the_study_compares_what_lightly_compared() -> None:
    arms = make_arms(read_study("lightly-cifar10")[1])
    recipes = [next(iter(arm.recipes.values())) for arm in arms]
    settings = [(each.training.batch_size, each.training.epochs) for each in recipes]
    assert settings == [(512, 800), (512, 200), (128, 200)]
    assert [each.optim.lr for each in recipes] == [0.03, 0.03, 0.12]
