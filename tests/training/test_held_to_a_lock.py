"""A run that has to be what a lock says: repeated to the bit, or refused with nothing written."""

from __future__ import annotations

import tarfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import pack_digits, tiny_recipe

from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import identity_differences, read_locked
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.studies.arms import make_arms
from simsiam_zoo.studies.study import Study, parse_study
from simsiam_zoo.training.setup import prepare
from simsiam_zoo.training.train import train

QUICK: dict[str, object] = {
    "training.epochs": 1,
    "training.batch_size": 32,
    "evaluation.protocols": ["knn:k=5"],
}


class Listening(Progress):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


def test_a_run_is_repeated_from_its_recipe_and_lock(
    tiny: Callable[..., Recipe], tmp_path: Path
) -> None:
    first = train(tiny(QUICK), tmp_path / "run", progress=Progress())
    recipe = Recipe.make(None, tmp_path / "run" / "recipe.toml")
    lock = read_locked(tmp_path / "run" / "lock.toml")
    lock["machine"]["platform"] = "another"
    progress = Listening()
    again = train(recipe, tmp_path / "again", locked=lock, progress=progress)
    assert (again["identity"], again["figures"]) == (first["identity"], first["figures"])
    warnings = [line for line in progress.said if "not as where the lock was made" in line]
    assert len(warnings) == 1
    assert 'machine.platform: "another" there' in warnings[0]
    locks = [(tmp_path / run / "lock.toml").read_text() for run in ("run", "again")]
    assert tomllib.loads(locks[0]) == tomllib.loads(locks[1])


def test_other_data_is_refused_and_nothing_written(
    tiny: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = tiny(QUICK)
    lock: dict[str, Any] = {**prepare(recipe).lock, "data": {"digest": "feed"}}
    with pytest.raises(InputError, match=r'data\.digest: "feed" there'):
        train(recipe, tmp_path / "run", locked=lock, progress=Progress())
    assert not (tmp_path / "run").exists()


def relabel(tar: Path) -> None:
    """Another label of the first image, in a file of the same size."""
    with tarfile.open(tar) as opened:
        member = next(each for each in opened if each.name.endswith(".cls"))
    with tar.open("r+b") as file:
        file.seek(member.offset_data)
        digit = file.read(1)
        file.seek(member.offset_data)
        file.write(b"0" if digit != b"0" else b"1")


def test_data_of_equal_size_that_states_no_checksum_is_told_from_what_it_was(
    tmp_path: Path,
) -> None:
    """By a resume, by --locked and by a study's arms, all by the one digest."""
    shards = pack_digits(tmp_path / "shards", tuple("0123456789"))
    for beside in (*shards.glob("*.json"), *shards.glob("*.safetensors")):
        beside.unlink()
    recipe = tiny_recipe(shards, {**QUICK, "training.checkpoint_steps": 1})
    progress = Listening()
    train(recipe, tmp_path / "run", progress=progress)
    assert any("have no checksum and are known by their size and" in line for line in progress.said)
    (tmp_path / "run" / "result.json").unlink()  # as if it had been cut short
    lock = read_locked(tmp_path / "run" / "lock.toml")
    (before,) = make_arms(study_of(recipe))

    tar = shards / "train-000000.tar"
    size = tar.stat().st_size
    relabel(tar)
    assert tar.stat().st_size == size
    with pytest.raises(InputError, match=r"another identity \(data\.digest"):
        train(recipe, tmp_path / "run", resume=True, progress=Progress())
    with pytest.raises(InputError, match=r"not the run of the lock: data\.digest"):
        train(recipe, tmp_path / "again", locked=lock, progress=Progress())
    (after,) = make_arms(study_of(recipe))
    assert after.key != before.key


def study_of(recipe: Recipe) -> Study:
    return parse_study({"base": recipe.to_dict()}, "it")


def test_a_run_is_bound_to_what_auto_came_to_mean(
    tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's other arithmetic computes something else: another identity."""
    recipe = tiny({**QUICK, "training.precision": "auto", "data.image_size": 32})
    monkeypatch.setattr("simsiam_zoo.runtime.device._cpu_has_bf16", lambda: True)
    there = prepare(recipe)
    monkeypatch.setattr("simsiam_zoo.runtime.device._cpu_has_bf16", lambda: False)
    here = prepare(recipe)
    assert there.identity != here.identity
    assert [str(difference) for difference in identity_differences(there.lock, here.lock)] == [
        'training.precision: "bf16" there, "fp32" here'
    ]
