from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import tomli_w

from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import (
    differences,
    make_lock,
    read_locked,
    refuse_other_recipe,
    refuse_other_run,
    smaller_differences,
)

RECIPE = Recipe.make("digits")
HERE = make_lock(RECIPE, "0123", {"precision": "bf16", "device": "cpu", "threads": 2})
LOCK = HERE | {"identity": "4567"}

Edit = Callable[[dict[str, Any]], object]


def edited(edit: Edit) -> dict[str, Any]:
    lock = copy.deepcopy(LOCK)
    edit(lock)
    return lock


@pytest.mark.parametrize(
    ("there", "here", "words"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 1}}, []),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, ["a.b: 1 there, 2 here"]),
        ({"a": {}}, {"a": {"b": "x"}}, ['a.b: nothing there, "x" here']),
        (
            {"a": {"b": True}, "c": 1},
            {"c": 2},
            ['a: {"b": true} there, nothing here', "c: 1 there, 2 here"],
        ),
        ({"a": [1, 2]}, {"a": [2, 1]}, ["a: [1, 2] there, [2, 1] here"]),
        ({"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 1}, {"b": 3}]}, ["a.1.b: 2 there, 3 here"]),
        ({"a": [{"b": 1}]}, {"a": []}, ['a: [{"b": 1}] there, [] here']),
    ],
)
def test_differences_in_words(there, here, words):
    assert [str(difference) for difference in differences(there, here)] == words


def test_a_lock_that_was_written_holds_its_own_run(tmp_path: Path):
    file = tmp_path / "lock.toml"
    file.write_text(tomli_w.dumps(LOCK))
    lock = read_locked(file)
    assert lock == LOCK
    refuse_other_recipe(lock, RECIPE)
    assert refuse_other_run(lock, HERE) == []


@pytest.mark.parametrize(
    "text",
    [
        None,
        "[torn",
        "",
        RECIPE.to_toml(),
        tomli_w.dumps(edited(lambda lock: lock.pop("data"))),
        tomli_w.dumps(edited(lambda lock: lock["parts"].update(loss="cosine"))),
        tomli_w.dumps(edited(lambda lock: lock.update(format=1))),
    ],
)
def test_a_file_that_is_no_lock_is_refused(tmp_path: Path, text: str | None):
    file = tmp_path / "lock.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError) as caught:
        read_locked(file)
    assert str(file) in caught.value.what
    assert caught.value.hint


@pytest.mark.parametrize(
    ("edit", "fragments"),
    [
        (
            lambda lock: lock["software"].update(timm="1.0.15", torch="2.9.1"),
            [
                f'software.timm: "1.0.15" there, "{timm.__version__}" here',
                "python -m pip install 'timm==1.0.15' 'torch==2.9.1'",
            ],
        ),
        (
            lambda lock: lock["software"].update(gone="1.0"),
            ['gone: "1.0" there, nothing here', "pip install 'gone==1.0'"],
        ),
        (
            lambda lock: lock["software"].update({"python": "3.9.1", "simsiam-zoo": "0.0.1"}),
            ['software.python: "3.9.1" there', "python -m pip install 'simsiam-zoo==0.0.1'"],
        ),
        (
            lambda lock: lock["code"].update({"swish-zoo": "version 0.3.0"}),
            ['code.swish-zoo: "version 0.3.0" there', "pip install 'swish-zoo==0.3.0'"],
        ),
        (
            lambda lock: lock["parts"]["projector"].update(version="0.3.0"),
            ['projector.version: "0.3.0" there'],
        ),
        (
            lambda lock: lock["code"].update({"simsiam-zoo": "source 0000"}),
            ['code.simsiam-zoo: "source 0000" there'],
        ),
    ],
)
def test_other_software_is_refused_with_what_differs(edit: Edit, fragments: list[str]):
    lock = edited(edit)
    with pytest.raises(InputError) as caught:
        refuse_other_recipe(lock, RECIPE)
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert "'python==" not in str(caught.value)
    with pytest.raises(InputError):
        refuse_other_run(lock, HERE)


@pytest.mark.parametrize(
    ("edit", "warning"),
    [
        (lambda lock: lock["machine"].update(platform="CP/M"), 'machine.platform: "CP/M" there'),
        (lambda lock: lock["machine"].update(threads=64), "machine.threads: 64 there, 2 here"),
    ],
)
def test_another_machine_warns(edit: Edit, warning: str):
    lock = edited(edit)
    refuse_other_recipe(lock, RECIPE)
    (line,) = refuse_other_run(lock, HERE)
    assert warning in line
    assert smaller_differences(lock, HERE) == [line]


@pytest.mark.parametrize(
    ("settings", "fragment"),
    [
        ({"training.epochs": 3}, "training.epochs: 24 there, 3 here"),
        ({"optim.parts.predictor.lr_scale": 0.5}, "optim.parts.predictor.lr_scale: 1.0 there"),
        ({"training.precision": "fp32"}, 'training.precision: "bf16" there, "fp32" here'),
        ({"predictor": "none"}, 'predictor.id: "simsiam-zoo/mlp" there, "simsiam-zoo/none" here'),
        ({"projector.hidden_dim": 3}, "projector.params.hidden_dim: "),
        ({"evaluation.protocols": ["knn:k=3", "logistic"]}, "evaluation.protocols.0.params.k: "),
        (
            {"data.image_size": 28, "data.lanes": 3, "training.seed": 5, "optim.lr": 3.0},
            "and 1 more",
        ),
    ],
)
def test_another_recipe_is_refused_with_what_differs(settings: dict[str, Any], fragment: str):
    recipe = Recipe.make("digits", None, settings)
    with pytest.raises(InputError, match="not the run of the lock") as caught:
        refuse_other_recipe(LOCK, recipe)
    assert fragment in str(caught.value)


def test_what_does_not_decide_the_result_may_differ():
    recipe = Recipe.make("digits", None, {"training.threads": 3, "training.precision": "bf16"})
    refuse_other_recipe(LOCK, recipe)


@pytest.mark.parametrize(
    ("edit", "fragment"),
    [
        (lambda lock: lock["data"].update(digest="ffff"), 'data.digest: "ffff" there, "0123" here'),
        (
            lambda lock: lock["recipe"]["training"].update(precision="fp16"),
            'training.precision: "fp16" there, "bf16" here',
        ),
    ],
)
def test_what_only_an_opened_run_knows_is_compared_then(edit: Edit, fragment: str):
    lock = edited(edit)
    refuse_other_recipe(lock, RECIPE)
    with pytest.raises(InputError) as caught:
        refuse_other_run(lock, HERE)
    assert fragment in str(caught.value)


def test_a_mismatch_is_found_before_torch_is_imported(tmp_path: Path):
    (tmp_path / "recipe.toml").write_text(RECIPE.to_toml())
    (tmp_path / "lock.toml").write_text(tomli_w.dumps(LOCK))
    code = (
        "import sys\n"
        "from simsiam_zoo.cli import main\n"
        "try:\n"
        "    main(['train', '--recipe', 'recipe.toml', '--locked', 'lock.toml', '--lr', '3'])\n"
        "except SystemExit as ended:\n"
        "    assert ended.code == 2\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "optim.lr: 1.0 there, 3.0 here" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.toml", "lock.toml"}
