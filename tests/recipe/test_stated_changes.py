"""`[[change]]`: what it may say, what it lies on, what it adds to the identity."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from simsiam_zoo.errors import InputError, PluginError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import identity, make_lock, refuse_missing

HALF = {"epoch": 0.5, "gradient": "none", "freeze": ["projector"]}


def recipe(*changes: dict[str, Any]) -> Recipe:
    """Of 24 epochs."""
    return Recipe.make("digits", None, {"change": list(changes)})


def identity_of(*changes: dict[str, Any]) -> str:
    return identity(make_lock(recipe(*changes), "0123", {}))


def test_each_change_lies_on_what_is_in_force_before_it():
    found = recipe(
        HALF | {"optim.lr": 0.1},
        {"epoch": 15, "gradient.sides": "one", "optim.parts.backbone.lr_scale": 0.5},
        {"epoch": 20, "predictor": "linear", "reset": ["projector"], "freeze": ["predictor"]},
    )
    stages = found.stages()
    assert [(s.begin, s.end) for s in stages] == [(0, 12), (12, 15), (15, 20), (20, 24)]
    assert [s.recipe.gradient.name for s in stages] == ["stop-gradient"] + 3 * ["none"]
    assert [s.recipe.gradient.params["sides"] for s in stages] == 2 * ["both"] + 2 * ["one"]
    assert [s.recipe.optim.lr for s in stages] == [1.0] + 3 * [0.1]
    assert [s.recipe.optim.part("backbone").lr_scale for s in stages] == [1.0, 1.0, 0.5, 0.5]
    assert {s.recipe.optim.part("predictor").schedule for s in stages} == {"constant"}
    assert [s.recipe.predictor.name for s in stages] == 3 * ["mlp"] + ["linear"]
    assert [s.frozen for s in stages] == [
        (),
        ("projector",),
        ("projector",),
        ("projector", "predictor"),
    ]
    assert stages[3].change is not None
    assert stages[3].change.renewed == ("projector", "predictor")


def test_toml_read_back_is_the_same_and_a_layer_states_all_changes(tmp_path: Path):
    file = tmp_path / "recipe.toml"
    file.write_text(recipe(HALF, {"epoch": 20, "loss": "mse"}).to_toml())
    again = Recipe.make(None, file)
    assert again == Recipe.of_run(file) == recipe(HALF, {"epoch": 20, "loss": "mse"})
    assert Recipe.make(None, file, {"change": []}) == recipe()
    assert Recipe.make(None, file, {"change": [HALF]}) == recipe(HALF)
    assert "change" not in recipe().to_toml()
    assert again.run_name() == "digits-change12-change20-seed0"


def test_the_identity_knows_a_change_and_not_how_it_is_spelt():
    assert identity_of(HALF) == identity_of(
        {"epoch": 12, "gradient": "simsiam-zoo/none:sides=both", "freeze": ["projector"]}
    )
    assert identity_of({"epoch": 3, "optim.lr": 0.5}) == identity_of(
        {"epoch": 3, "optim": {"lr": 0.5, "parts": {"loss": {}}}}
    )
    others = [
        {**HALF, "epoch": 13},
        {**HALF, "gradient": "none:sides=one"},
        {"epoch": 12, "gradient": "none"},
        {"epoch": 12, "gradient": "none", "reset": ["projector"]},
        {**HALF, "optim.lr": 0.5},
        {**HALF, "optim.parts.predictor.lr_scale": 0.5},
        {**HALF, "augmentation": "cifar"},
    ]
    found = [identity_of(HALF), identity_of(), *map(identity_of, others)]
    assert len(set(found)) == len(found)


def test_a_changes_part_that_is_gone_is_missed():
    lock = make_lock(recipe(HALF), "0123", {})
    lock["parts"]["gradient from epoch 12"]["distribution"] = "gone-zoo"
    with pytest.raises(PluginError, match=r"the run's gradient from epoch 12 is .* gone-zoo"):
        refuse_missing(lock)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"epoch": 3, "gradiant": "none"}, "'gradiant'.*Did you mean gradient"),
        ({"epoch": 3, "gradient": "nne"}, "'nne'.*Did you mean none"),
        ({"epoch": 3, "gradient": "none:side=one"}, "'side'.*Did you mean sides"),
        ({"epoch": 3, "lr": 0.1}, "'lr'.*Did you mean optim.lr"),
        ({"epoch": 3, "optim.lrs": 0.1}, "'optim.lrs'.*Did you mean optim.lr"),
        ({"epoch": 3, "optim.lr": -1}, r"optim.lr is > 0, not -1"),
        ({"epoch": 3, "optim.momentum": 0.5}, "optim.momentum cannot change.*What can change"),
        ({"epoch": 3, "optim.parts.predicter.lr_scale": 2.0}, "'predicter'.*predictor"),
        ({"epoch": 3, "backbone": "resnet18"}, "backbone cannot change.*gradient, loss"),
        ({"epoch": 3, "data.image_size": 16}, "data.image_size cannot change"),
        ({"epoch": 3, "training.batch_size": 16}, "training.batch_size cannot change"),
        ({"epoch": 3, "preset": "digits"}, "preset cannot change"),
        ({"epoch": 3, "freeze": ["backbone"]}, "'projector' or 'predictor', not 'backbone'"),
        ({"epoch": 3, "freeze": "projector"}, "freeze is a list"),
        ({"epoch": 3}, "changes nothing.*What can change"),
        ({"epoch": 3, "reset": []}, "changes nothing"),
        ({"gradient": "none"}, "no epoch"),
        ({"epoch": 0, "gradient": "none"}, "epoch 0 is not after 1"),
        ({"epoch": 24, "gradient": "none"}, "epoch 24 does not come in a run of 24 epochs"),
        ({"epoch": 1.5, "gradient": "none"}, "share of the run.*not 1.5"),
        ({"epoch": True, "gradient": "none"}, "share of the run.*not True"),
        ("none", "a table with an epoch"),
    ],
)
def test_what_a_change_cannot_say_is_refused_with_what_it_can(change, expected):
    with pytest.raises(InputError) as caught:
        Recipe.make("digits", None, {"change": [HALF | {"epoch": 1}, change]})
    assert str(caught.value).startswith("change.1: ")
    assert re.search(expected, str(caught.value), re.DOTALL), caught.value


def test_changes_come_one_after_the_other(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text("[[change]]\nepoch = 5\nloss = 'mse'\n[[change]]\nepoch = 5\noptim.lr = 0.1\n")
    with pytest.raises(InputError, match=r"mine.toml: change.1: epoch 5 is not after 5"):
        Recipe.make("digits", file)
    with pytest.raises(InputError, match="epoch 0 is the beginning"):
        recipe({"epoch": 0, "gradient": "none"})
    with pytest.raises(InputError, match="change is a list of tables"):
        Recipe.make("digits", None, {"change": {"epoch": 5}})
