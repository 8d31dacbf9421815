"""A study's arms: each a recipe, what it substitutes, and what the study says of it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from simsiam_zoo.catalog import catalog
from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import identity, make_lock
from simsiam_zoo.recipe.locked import differences
from simsiam_zoo.studies.study import Study, flat

BASE = "base"


@dataclass(frozen=True)
class Arm:
    """One arm of a study.

    Attributes:
        name: of its folder: lower case letters, digits, `.`, `_` and `-`; different for each arm.
        label: what people call it.
        part: the path that it substitutes, where it is one.
        substitution: dotted path → value, as the study has them.
        recipes: by seed.
        key: its folder's name; it changes with all that decides what its runs compute.
        expect: the verdicts that would be as expected; empty: nothing is expected.
        paper: the paper's top-1 in per cent.
        same_as: the arm that computes the very same, and is run in its place.
        skip: why it is not run; empty: it is.
    """

    name: str
    label: str
    part: str | None
    substitution: Mapping[str, Any]
    recipes: Mapping[int, Recipe]
    key: str
    expect: tuple[str, ...] = ()
    paper: float | None = None
    same_as: str | None = None
    skip: str = ""
    differences: list[tuple[str, Any, Any]] = field(default_factory=list)

    @property
    def is_base(self) -> bool:
        """Whether nothing is substituted."""
        return not self.substitution


def make_arms(study: Study) -> list[Arm]:
    """The base and every arm, each recipe complete and valid.

    Raises:
        InputError: a name or a value of an arm is wrong; the arm is named.
        PluginError: a preset cannot be read.
    """
    for metric in study.metrics:
        catalog().resolve("protocol", metric)
    base = _arm(study, BASE, study.label, None, {}, _as_tuple(study.expect), study.paper)
    arms = [base]
    for ablation in study.ablation:
        for i, substitution in enumerate(ablation.substitutions()):
            words = [f"{path}: {_shown(value)}" for path, value in substitution.items()]
            arm = _arm(
                study,
                _free(_slug(substitution), [arm.name for arm in arms]),
                ablation.entry("label", i) or ", ".join(words),
                ablation.part,
                substitution,
                _as_tuple(ablation.expect),
                ablation.entry("paper", i) if ablation.paper != () else None,
                arms,
            )
            arms.append(dataclasses.replace(arm, skip=ablation.skip))
    return arms


def _arm(
    study: Study,
    name: str,
    label: str,
    part: str | None,
    substitution: dict[str, Any],
    expect: tuple[str, ...],
    paper: float | None,
    others: list[Arm] | None = None,
) -> Arm:
    recipes = {seed: _recipe(study, label, substitution, seed) for seed in study.seeds}
    first = recipes[study.seeds[0]]
    digest = _digest(first, study)
    same = next((arm for arm in others or () if arm.key.endswith(f"-{digest}")), None)
    base = others[0] if others else None
    return Arm(
        name=name,
        label=label,
        part=part,
        substitution=substitution,
        recipes=recipes,
        key=f"{name}-{digest}" if same is None else same.key,
        expect=expect,
        paper=paper,
        same_as=None if same is None else same.name,
        differences=[] if base is None else _differences(base.recipes[study.seeds[0]], first),
    )


def _recipe(study: Study, label: str, substitution: dict[str, Any], seed: int) -> Recipe:
    settings: dict[str, object] = {
        key: value for key, value in study.base.items() if key != "preset"
    }
    settings |= substitution
    settings |= {"training.seed": seed, "training.threads": study.threads}
    try:
        return Recipe.make(study.preset, settings=settings)
    except InputError as error:
        where = "the study's base" if not substitution else f"arm {label!r}"
        raise InputError(f"{where}: {error.what}", error.hint) from None


def _digest(recipe: Recipe, study: Study) -> str:
    """Eight hex digits of what decides the figures of all seeds: parts, their versions, keys."""
    first = recipe.model_copy(update={"training": recipe.training.model_copy(update={"seed": 0})})
    # Threads are no part of a run's identity, but two of them sum in another order than one.
    return identity(make_lock(first, f"threads {study.threads}", {}))[:8]


def _differences(base: Recipe, arm: Recipe) -> list[tuple[str, Any, Any]]:
    """(key, base, arm) wherever the recipes differ."""
    return [tuple(each) for each in differences(base.to_dict(), arm.to_dict())]


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


def _as_tuple(verdicts: str | tuple[str, ...]) -> tuple[str, ...]:
    return (verdicts,) if isinstance(verdicts, str) else verdicts
