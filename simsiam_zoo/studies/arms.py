"""A study's arms: each a recipe, what it substitutes, and what the study says of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from simsiam_zoo.catalog import catalog
from simsiam_zoo.data.shards import Dataset
from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import differences, identity, make_lock
from simsiam_zoo.recipe.sizes import data_at_hand, data_digest
from simsiam_zoo.studies.study import Study, flat

BASE = "base"

NOT_AT_HAND = "not at hand"
"""What a data digest begins with where the data is not there to be looked at."""


@dataclass(frozen=True)
class StudyArm:
    """One arm of a study.

    Attributes:
        name: of its folder: lower case letters, digits, `.`, `_` and `-`; different for each arm.
        label: what people call it.
        part: the path that it substitutes, where it is one.
        substitution: dotted path → value, as the study has them.
        recipes: by seed.
        key: its folder's name; it changes with all that decides what its runs compute.
        lock: that in full: recipe, parts, code and data, with seed 0.
        dataset: its data, where that is at hand.
        expect: the verdicts that would be as expected; empty: nothing is expected.
        paper: the paper's top-1 in per cent.
        same_as: the arm that computes the very same, and is run in its place.
        skip: why it is not run; empty: it is.
        differences: (key, base, arm) wherever the recipes differ.
    """

    name: str
    label: str
    part: str | None
    substitution: Mapping[str, Any]
    recipes: Mapping[int, Recipe]
    key: str
    lock: Mapping[str, Any]
    dataset: Dataset | None
    expect: tuple[str, ...] = ()
    paper: float | None = None
    same_as: str | None = None
    skip: str = ""
    differences: list[tuple[str, Any, Any]] = field(default_factory=list)

    @property
    def is_base(self) -> bool:
        """Whether nothing is substituted."""
        return not self.substitution


def make_arms(study: Study) -> list[StudyArm]:
    """The base and every arm, each recipe complete and valid.

    Raises:
        InputError: a name or a value of an arm is wrong; the arm is named.
        PluginError: a preset cannot be read.
        DataError: the data is at hand, and damaged.
    """
    for metric in study.metrics:
        catalog().resolve("protocol", metric)
    data = _OpenData()
    base = _arm(study, BASE, study.label, {}, data)
    arms = [replace(base, expect=study.expect, paper=study.paper)]
    for ablation in study.ablation:
        for i, substitution in enumerate(ablation.substitutions()):
            words = [f"{path}: {_shown(value)}" for path, value in substitution.items()]
            name = _free(_slug(substitution), [arm.name for arm in arms])
            label = ablation.entry("label", i) or ", ".join(words)
            arm = replace(
                _arm(study, name, label, substitution, data),
                part=ablation.part,
                expect=ablation.expect,
                paper=ablation.entry("paper", i) if ablation.paper != () else None,
                skip=ablation.skip,
            )
            arms.append(_compared(arm, arms))
    return arms


def arm_lock(recipe: Recipe, digest: str) -> dict[str, Any]:
    """What decides the figures of an arm's runs: the lock of the one with seed 0."""
    training = recipe.training.model_copy(update={"seed": 0})
    return make_lock(recipe.model_copy(update={"training": training}), digest, {})


def arm_digest(lock: Mapping[str, Any]) -> str:
    """Eight hex digits of an arm's lock."""
    return identity(dict(lock))[:8]


def known_digest(recipe: Recipe, dataset: Dataset | None) -> str:
    """The data's digest; where it is not at hand, its name and parameters."""
    if dataset is not None:
        return data_digest(dataset)
    part = recipe.part("dataset")
    return f"{NOT_AT_HAND}: {part.id} {json.dumps(dict(part.params), sort_keys=True, default=str)}"


class _OpenData:
    """Data sets that are open: most arms have the same."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Dataset | None, str]] = {}

    def of(self, recipe: Recipe) -> tuple[Dataset | None, str]:
        key = f"{recipe.data.stream} {known_digest(recipe, None)}"
        if key not in self._open:
            dataset = data_at_hand(recipe)
            self._open[key] = dataset, known_digest(recipe, dataset)
        return self._open[key]


def _arm(
    study: Study, name: str, label: str, substitution: dict[str, Any], data: _OpenData
) -> StudyArm:
    recipes = {seed: _recipe(study, label, substitution, seed) for seed in study.seeds}
    first = recipes[study.seeds[0]]
    dataset, digest = data.of(first)
    lock = arm_lock(first, digest)
    key = f"{name}-{arm_digest(lock)}"
    return StudyArm(name, label, None, substitution, recipes, key, lock, dataset)


def _compared(arm: StudyArm, others: Sequence[StudyArm]) -> StudyArm:
    """The arm with what tells it from the base, and the earlier one that has its figures too."""
    base = others[0].recipes
    differing = [
        (key, there, here)
        for seed in list(base)[:1]
        for key, there, here in differences(base[seed].to_dict(), arm.recipes[seed].to_dict())
    ]
    arm = replace(arm, differences=differing)
    if arm.skip:
        return arm
    same = next((each for each in others if not each.skip and each.lock == arm.lock), None)
    return arm if same is None else replace(arm, key=same.key, same_as=same.same_as or same.name)


def _recipe(study: Study, label: str, substitution: dict[str, Any], seed: int) -> Recipe:
    base = {key: value for key, value in study.base.items() if key != "preset"}
    decided = {"training.seed": seed, "training.threads": study.threads}
    try:
        return Recipe.make(study.preset, None, [base, substitution, decided])
    except InputError as error:
        raise error.at("the study's base" if not substitution else f"arm {label!r}") from None


def _slug(substitution: Mapping[str, Any]) -> str:
    words = [f"{path.rpartition('.')[2]}-{_shown(value)}" for path, value in substitution.items()]
    return re.sub(r"[^a-z0-9._-]+", "-", "-".join(words).lower()).strip("-.")[:60] or "arm"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        name = str(value.get("name", ""))
        rest = ",".join(f"{key}={each}" for key, each in flat(value).items() if key != "name")
        return f"{name}:{rest}" if rest else name
    return "/".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _free(name: str, taken: list[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
