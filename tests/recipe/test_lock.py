from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from typing import Any

import pytest
import tomli_w

from simsiam_zoo.catalog import HOST, PARTS
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.layers import COMPONENTS
from simsiam_zoo.recipe.lock import differences, identity, lock_part, make_lock
from simsiam_zoo.recipe.recipe import may_change_on_resume, operational_paths, recipe_keys

# A value for every key that differs from the preset `cifar10`. A new key has to be added here.
ALTERNATIVES: dict[str, Any] = {
    "backbone": "resnet18",
    "projector": "none",
    "predictor": "linear",
    "gradient": "none",
    "loss": "mse",
    "augmentation": "simsiam",
    "dataset": "digits",
    "data.image_size": 28,
    "data.channels": 5,
    "data.mean": [0.1, 0.2, 0.3],
    "data.std": [0.1, 0.2, 0.3],
    "data.window": 3,
    "data.lanes": 2,
    "data.workers": 3,
    "data.views": "split",
    "data.validation": 0.25,
    "data.resident": 3.0,
    "data.max_damaged": 0.5,
    "data.stream": True,
    "data.steps_per_epoch": 7,
    "data.cache_gb": 3.0,
    "training.epochs": 3,
    "training.batch_size": 128,
    "training.seed": 3,
    "training.init": "0123456789abcdef",
    "training.precision": "fp32",
    "training.device": "cpu",
    "training.compile": True,
    "training.accumulate": 2,
    "training.activation_checkpointing": True,
    "training.threads": 3,
    "training.checkpoint_steps": 3,
    "training.checkpoint_minutes": 3.0,
    "training.until": 3,
    "optim.name": "lars",
    "training.stop_on_collapse": True,
    "training.sync_bn": False,
    "optim.lr": 0.3,
    "optim.momentum": 0.3,
    "optim.betas": [0.9, 0.95],
    "optim.trust_coefficient": 0.3,
    "optim.lr_in_momentum": False,
    "optim.weight_decay": 0.3,
    "optim.norm_and_bias_lr_scale": 0.3,
    "optim.final_lr_scale": 0.3,
    "optim.exclude_norm_and_bias": True,
    "optim.schedule": "constant",
    "optim.warmup_epochs": 0.5,
    "optim.clip_norm": 0.3,
    "optim.parts": {"loss": {"lr_scale": 0.5}},
    "evaluation.protocols": ["knn"],
    "evaluation.crop": 0.5,
    "evaluation.baselines": False,
    "evaluation.rank_samples": 3,
    "logging.interval_steps": 3,
    "evaluation.online": ["logistic"],
    "evaluation.online_epochs": 3,
    "evaluation.online_images": 3,
    "logging.loggers": ["csv"],
    "change": [{"epoch": 2, "gradient": "none"}],
}

# What the key belongs to, where the preset has something else.
NEEDS: dict[str, dict[str, Any]] = {
    "data.channels": {"data.mean": [0.5], "data.std": [0.5]},
    "optim.betas": {"optim.name": "adamw"},
    "optim.trust_coefficient": {"optim.name": "lars"},
    "optim.lr_in_momentum": {"optim.name": "lars"},
}

# Where and how, not what: device, workers, checkpointing, logging.
OPERATIONAL = {
    "data.workers",
    "data.resident",
    "data.max_damaged",
    "data.cache_gb",
    "training.device",
    "training.compile",
    "training.activation_checkpointing",
    "training.threads",
    "training.checkpoint_steps",
    "training.checkpoint_minutes",
    "training.until",
    "logging.interval_steps",
    "evaluation.online",
    "evaluation.online_epochs",
    "evaluation.online_images",
    "logging.loggers",
}


def lock_of(recipe: Recipe, digest: str = "0123", **machine: Any) -> dict[str, Any]:
    return make_lock(recipe, digest, machine)


def identity_of(recipe: Recipe, **machine: Any) -> str:
    return identity(lock_of(recipe, **machine))


def identity_with(**settings: Any) -> str:
    return identity_of(Recipe.make("cifar10", None, settings))


PLAIN = Recipe.make("cifar10")


def test_every_key_is_looked_at():
    assert {path for path, _ in recipe_keys()} == ALTERNATIVES.keys() | {"preset"}
    assert set(operational_paths()) == OPERATIONAL


@pytest.mark.parametrize("path", ALTERNATIVES)
def test_the_identity_is_of_what_a_run_computes_and_not_of_how(path):
    needs = NEEDS.get(path, {})
    plain = Recipe.make("cifar10", None, needs)
    recipe = Recipe.make("cifar10", None, {**needs, path: ALTERNATIVES[path]})
    assert recipe != plain  # the alternative is one
    changed = identity_of(recipe) != identity_of(plain)
    assert changed == (path not in OPERATIONAL)
    assert may_change_on_resume(PLAIN, path) == (path in OPERATIONAL)


@pytest.mark.parametrize(
    "settings",
    [
        {"predictor.hidden_dim": 511},
        {"projector.output_affine": True},
        {"gradient.sides": "one"},
        {"augmentation.hue": 0.2},
        {"optim.parts.predictor.weight_decay": 0.0},
        {"optim.parts.predictor.schedule": "cosine"},
        {"change": [{"epoch": 0.5, "reset": ["predictor"]}]},
    ],
)
def test_parameters_of_parts_change_the_identity(settings):
    assert identity_with(**settings) != identity_with()
    assert not any(may_change_on_resume(PLAIN, path) for path in settings)


def test_where_the_data_lies_is_no_part_of_the_identity_and_what_it_is_is():
    elsewhere = Recipe.make("cifar10", None, {"dataset.path": "/elsewhere", "dataset.test": "/too"})
    lock = lock_of(elsewhere)
    assert elsewhere.dataset.params["path"] == "/elsewhere"
    assert lock["parts"]["dataset"]["params"] == {}
    assert "/elsewhere" not in json.dumps(lock)
    assert identity(lock) == identity_of(PLAIN)
    assert identity(lock_of(PLAIN, digest="4567")) != identity_of(PLAIN)
    assert may_change_on_resume(PLAIN, "dataset.path")
    for other in ("dataset", "dataset.name", "dataset.nothing", "nothing", "training"):
        assert not may_change_on_resume(PLAIN, other)


def test_the_spelling_and_the_machine_are_no_part_of_the_identity():
    written_out = Recipe.make(
        "simsiam-zoo/cifar10",
        None,
        {
            "predictor": "simsiam-zoo/mlp:norm=hidden,hidden_dim=512",
            "backbone": "simsiam-zoo/resnet18_cifar",
        },
    )
    same_by_another_name = written_out.model_copy(update={"preset": "mine"})
    lock = lock_of(PLAIN, device="cuda:0", threads=64)
    lock["software"]["torch"] = "0.0"
    assert identity(lock) == identity_of(PLAIN)
    for recipe in (written_out, same_by_another_name):
        assert identity_of(recipe) == identity_of(PLAIN)
    by_family = {"backbone": "timm:resnet18"}
    assert identity_with(**by_family) == identity_with(backbone="resnet18")


def test_the_identity_is_the_same_from_the_lock_file():
    recipe = Recipe.make("imagenet", None, {"backbone": "vit_tiny_patch16_224", "loss": "mse"})
    lock = lock_of(recipe)
    read = tomllib.loads(tomli_w.dumps(lock))
    assert list(differences(lock, read)) == []
    assert identity(read) == identity(lock)


def test_a_version_changes_the_identity_where_it_stands_for_the_source():
    part = PLAIN.part("predictor")
    newer = replace(part.entry.plugin, version="99.0")
    upgraded = replace(part, entry=replace(part.entry, plugin=newer))
    lock = lock_of(PLAIN)
    assert lock["parts"]["predictor"] == lock_part(part)
    other = lock | {"parts": lock["parts"] | {"predictor": lock_part(upgraded)}}
    (difference,) = differences(lock["parts"], other["parts"])
    assert str(difference) == f'predictor.version: "{part.entry.version}" there, "99.0" here'
    assert identity(other) == identity(lock)  # the source is the same
    wheels = [lock | {"code": {HOST: f"version {version}"}} for version in ("1.0.0", "1.0.1")]
    assert len({identity(each) for each in [lock, *wheels]}) == 3


def test_the_lock_names_every_part_by_its_supplier():
    parts = lock_of(PLAIN)["parts"]
    assert parts.keys() == set(COMPONENTS)
    assert parts["backbone"]["id"] == "simsiam-zoo/resnet18_cifar"
    assert parts["projector"]["params"]["hidden_dim"] == 2048
    assert all(part["distribution"] == "simsiam-zoo" for part in parts.values())
    family = Recipe.make("cifar10", None, {"backbone": "densenet121"}).part("backbone")
    assert lock_part(family)["id"] == "simsiam-zoo/timm:densenet121"


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ({"evaluation.protocols": ["knn"]}, {"evaluation.protocols": ["simsiam-zoo/knn:t=0.1"]}),
        (
            {"evaluation.protocols": ["knn:k=5,t=0.2"]},
            {"evaluation.protocols": ["knn:t=0.2,k=5"]},
        ),
        ({"optim.parts.loss": {}}, {}),
        ({"optim.parts.backbone.schedule": "cosine"}, {}),
        ({"optim.parts.backbone.weight_decay": 5e-4}, {}),
        ({"optim.parts.backbone.exclude_norm_and_bias": False}, {}),
        ({"optim.name": "adamw", "optim.betas": [0.9, 0.999]}, {"optim.name": "adamw"}),
        (
            {"optim.schedule": "constant"},
            {f"optim.parts.{part}.schedule": "constant" for part in PARTS},
        ),
    ],
)
def test_what_computes_the_same_has_one_identity(written, means):
    assert identity_with(**written) == identity_with(**means)


def test_the_protocols_are_in_the_lock_and_in_the_identity():
    recipe = Recipe.make("cifar10", None, {"evaluation.protocols": ["knn:k=5", "logistic"]})
    lock = lock_of(recipe)
    assert [protocol["id"] for protocol in lock["protocols"]] == [
        "simsiam-zoo/knn",
        "simsiam-zoo/logistic",
    ]
    assert lock["protocols"][0]["params"]["k"] == 5
    assert identity(lock) != identity_with(**{"evaluation.protocols": ["knn:k=6", "logistic"]})
    other_order = {"evaluation.protocols": ["logistic", "knn:k=5"]}
    assert identity(lock) != identity_with(**other_order)


def test_the_identity_holds_the_arithmetic_that_was_chosen():
    chosen = {name: identity_of(PLAIN, precision=name) for name in ("fp32", "bf16")}
    assert PLAIN.training.precision == "auto"
    assert chosen["fp32"] != chosen["bf16"]
    for name, expected in chosen.items():
        asked = Recipe.make("cifar10", None, {"training.precision": name})
        assert identity_of(asked, precision=name) == expected
