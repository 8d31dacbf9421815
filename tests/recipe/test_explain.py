from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from simsiam_zoo.catalog import Text
from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.layers import COMPONENTS
from simsiam_zoo.recipe.recipe import recipe_keys

JARGON = re.compile(
    r"pydantic|valid (dict|tuple|int|num|str|bool)|instance of|[Ii]nput should|Traceback|type="
    r"|_type\b|[Ff]ield required|validation error|literal\["
)


def refusal(settings: Mapping[str, object], preset: str = "cifar10") -> str:
    """The message with which `settings` are refused; it must be one for people."""
    with pytest.raises(InputError) as caught:
        Recipe.make(preset, None, settings)
    message = str(caught.value)
    assert not JARGON.search(message), message
    return message


KEYS = [path for path, _ in recipe_keys() if path not in COMPONENTS]


@pytest.mark.parametrize(
    "path", [*KEYS, *(f"optim.parts.predictor.{key}" for key in ("lr_scale", "schedule"))]
)
def test_a_misspelt_key_is_refused_with_the_right_one(path):
    section, _, key = path.rpartition(".")
    wrong = key + "x"
    message = refusal({f"{section}.{wrong}".lstrip("."): 1})
    assert f"{wrong!r}" in message
    assert f"[{section}]" in message or not section
    assert re.search(rf"Did you mean .*\b{key}\b", message), message


@pytest.mark.parametrize(
    ("settings", "fragments"),
    [
        ({"trainin.epochs": 3}, ["'trainin'", "training"]),
        ({"epochs": 3}, ["'epochs'", "training.epochs"]),
        ({"training.lr": 3}, ["[training]", "'lr'", "optim.lr"]),
        ({"training.": 3}, ["[training]", "Its keys are epochs, batch_size"]),
        ({"optim.parts.predicter.schedule": "constant"}, ["'predicter'", "predictor"]),
        ({"predictor.hiden_dim": 3}, ["'hiden_dim'", "hidden_dim"]),
        ({"predictor": "mlp:hiden_dim=3"}, ["'hiden_dim'", "hidden_dim"]),
        ({"predictor": "mpl"}, ["'mpl'", "mlp"]),
        ({"backbone.name": "resnet18_cifr"}, ["'resnet18_cifr'", "resnet18_cifar"]),
        ({"evaluation.protocols": ["knnn"]}, ["protocol 'knnn'", "knn"]),
        ({"evaluation.protocols": ["knn:kk=3"]}, ["'kk'", "Did you mean k?"]),
        ({"preset.x": 1}, ["preset"]),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(settings, fragments):
    message = refusal(settings)
    assert all(fragment in message for fragment in fragments), message


@pytest.mark.parametrize(
    ("path", "value", "way_out"),
    [
        ("training", 3, "a table, not 3"),
        ("training.epochs", "x", "an int, not 'x'"),
        ("training.epochs", Text("x"), "an int, not 'x'"),
        ("training.epochs", 1.5, "an int, not 1.5"),
        ("training.epochs", True, "an int, not True"),
        ("training.epochs", 0, ">= 1, not 0"),
        ("training.batch_size", 1, ">= 2, not 1"),
        ("training.seed", -1, ">= 0, not -1"),
        ("training.seed", 2**63, f"< {2**63}"),
        ("training.precision", "fp31", "'auto', 'fp64', 'fp32', 'bf16' or 'fp16', not 'fp31'"),
        ("optim.lr", 0, "> 0, not 0"),
        ("optim.lr", float("nan"), "a finite number, not nan"),
        ("optim.lr", Text("inf"), "a finite number, not inf"),
        ("optim.name", "adamx", "'sgd', 'lars' or 'adamw', not 'adamx'"),
        ("optim.momentum", 1, "< 1.0, not 1"),
        ("optim.momentum", "x", "a number, not 'x'"),
        ("optim.exclude_norm_and_bias", 1, "true or false, not 1"),
        ("optim.parts.loss.exclude_norm_and_bias", 1, "true or false or 'inherit', not 1"),
        ("optim.weight_decay", -1e-4, ">= 0, not -0.0001"),
        ("optim.parts", 3, "a table, not 3"),
        ("optim.parts.predictor", 3, "a table, not 3"),
        ("optim.parts.predictor.weight_decay", -1.0, ">= 0 or 'inherit', not -1.0"),
        ("optim.parts.predictor.weight_decay", "x", "a number or 'inherit', not 'x'"),
        ("optim.parts.loss.weight_decay", float("inf"), "a finite number or 'inherit', not inf"),
        ("data.workers", "al", "an int or 'auto', not 'al'"),
        ("data.workers", -1, ">= 0 or 'auto', not -1"),
        ("data.mean", [0.5, 0.5], "mean has 2 values, and channels is 3"),
        ("data.mean", [0.5] * 4, "mean has 4 values, and channels is 3"),
        ("data.mean", Text("0.5"), "a list, not 0.5"),
        ("data.mean.1", [0.5, float("nan"), 0.5], "a finite number, not nan"),
        ("data.mean.0", ["0.5", 0.5, 0.5], "a number, not '0.5'"),
        ("data.std", [0.5, 0, 0.5], "data.std.1 is > 0, not 0"),
        ("data.resident", -1.0, ">= 0 or 'auto', not -1.0"),
        ("data.std", [], "a number for each channel"),
        ("evaluation.crop", 1.5, "<= 1, not 1.5"),
        ("evaluation.protocols", Text("knn"), "a list, not 'knn'"),
        ("evaluation.baselines", Text("yes"), "true or false, not 'yes'"),
        ("evaluation.online_epochs", -1, ">= 0 or 'auto', not -1"),
        ("predictor", 3, "a name or a table, not 3"),
        ("predictor.name", 3, "a component's name, not 3"),
        ("predictor.hidden_dim", 0, "an int >= 1, not 0"),
        ("predictor.hidden_dim", "64", "an int >= 1, not '64'"),
        ("predictor.hidden_dim", Text("many"), "an int >= 1, not 'many'"),
        ("augmentation.flip_p", float("nan"), "a number from 0 to 1, not nan"),
        ("training.epochs.x", 3, "an int, not a table"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path_and_what_it_has_to_be(path, value, way_out):
    *_, last = path.split(".")
    whole_list = path.removesuffix(f".{last}") if last.isdigit() else path
    message = refusal({whole_list: value})
    where = path.removesuffix(".x")
    # A component's own parameters are told as "hidden_dim of predictor mlp".
    part, _, key = where.partition(".")
    assert where in message or f"{key} of {part}" in message, message
    assert way_out in message


@pytest.mark.parametrize(
    "text", ["[training\nepochs = 3", "\x00", "preset = 3\n", 'extends = "digits"\n']
)
def test_a_file_that_is_no_recipe_is_refused(write, text):
    with pytest.raises(InputError) as caught:
        Recipe.make(None, write(text))
    assert not JARGON.search(str(caught.value))


def test_a_wrong_value_is_told_with_the_file_or_preset_that_states_it(write, tmp_path):
    file = write('preset = "digits"\n[training]\nepochs = "3"\n[predictor]\nhidden_dim = 0\n')
    with pytest.raises(InputError) as caught:
        Recipe.make(None, file, {"predictor.hidden_dim": 64})
    assert caught.value.what == f"{file}: training.epochs is an int, not '3'"
    with pytest.raises(InputError) as caught:
        Recipe.make(None, file, {"training.epochs": 3})
    assert caught.value.what.startswith(f"{file}: ")
    assert "hidden_dim of predictor mlp is an int >= 1, not 0" in caught.value.what
    with pytest.raises(InputError) as caught:  # what was typed needs no place
        Recipe.make(None, None, {"training.epochs": "3"})
    assert caught.value.what == "training.epochs is an int, not '3'"
    with pytest.raises(InputError, match=r"\[training\] has no key 'epoch'") as caught:
        Recipe.make(None, write("[training]\nepoch = 3\n"))
    assert str(file) in caught.value.what


def test_a_mark_of_the_byte_order_is_no_part_of_a_file(tmp_path):
    text = 'preset = "digits"\n[training]\nepochs = 3\n'
    file = tmp_path / "marked.toml"
    file.write_bytes(text.encode("utf-8-sig"))
    assert Recipe.make(None, file).training.epochs == 3
    file.write_bytes(text.encode("utf-16"))
    with pytest.raises(InputError, match="is not UTF-8 text") as caught:
        Recipe.make(None, file)
    assert caught.value.hint == "Save it as UTF-8."


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b'preset = "\xe9"\n')
    for path in (tmp_path / "no.toml", tmp_path, tmp_path / "latin.toml", tmp_path / "a\0b"):
        with pytest.raises(InputError, match=re.escape(str(path))):
            Recipe.make(None, path)


@pytest.mark.parametrize(
    ("name", "key", "value", "users"),
    [
        ("sgd", "betas", [0.9, 0.95], "adamw"),
        ("sgd", "trust_coefficient", 0.02, "lars"),
        ("lars", "betas", [0.9, 0.95], "adamw"),
        ("adamw", "momentum", 0.9, "sgd and lars"),
        ("adamw", "trust_coefficient", 0.02, "lars"),
    ],
)
def test_a_key_that_the_optimiser_has_no_use_for_is_refused(name, key, value, users):
    message = refusal({"optim.name": name, f"optim.{key}": value})
    assert f"{name} has no {key}: that is a key of {users}." in message
    assert f"optim.{key}" in message


@pytest.mark.parametrize(
    ("betas", "way_out"),
    [
        ([0.9], "too few values"),
        ([0.9, 0.99, 0.999], "too many values"),
        ([0.9, 1.0], "optim.betas.1 is < 1.0, not 1.0"),
        (0.9, "a list, not 0.9"),
    ],
)
def test_betas_are_two_numbers_below_1(betas, way_out):
    assert way_out in refusal({"optim.name": "adamw", "optim.betas": betas})
