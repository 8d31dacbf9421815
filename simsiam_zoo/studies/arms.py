"""The arms of a study: the base and its substitutions, each with complete and valid recipes.

Where the study tunes, an arm has candidates: the same arm with each value that may be chosen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field

from simsiam_zoo.catalog import catalog
from simsiam_zoo.data.shards import Dataset
from simsiam_zoo.errors import located
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.changes import in_words, is_change
from simsiam_zoo.recipe.layers import COMPONENTS, Tree, flat
from simsiam_zoo.recipe.lock import differences, identity, make_lock
from simsiam_zoo.studies.study import REMOVED, Study

BASE = "base"


class StudyArm(BaseModel):
    """One arm of a study, as `study.json` has it but for recipes, identity and data.

    Attributes:
        name: different for each arm; the label is what people call it.
        key: names its folder; it changes with all that decides what its runs compute.
        part: the path that it substitutes, where it is one.
        substitution: dotted path → value, as the study has them; empty for the base.
        differences: (key, base, arm) wherever the recipes differ.
        expect: the verdicts that would be as expected; empty: nothing is expected.
        paper: the paper's top-1 in per cent.
        same_as: the arm that computes the very same, and is run in its place.
        not_run: why it is not, or cannot be.
        steps: an epoch, and in all; None where the data is not at hand.
        candidates: of a study that tunes: the arm with each candidate's values, shorter, on a part
            of the training images.
        chosen: the values of the best of them, which its recipes have; None: not chosen yet.
        recipes: by seed.
        identity: of its run with seed 0: recipe, parts, code and data.
    """

    name: str
    label: str
    key: Annotated[str, Field(pattern=r"^[a-z0-9_-][a-z0-9._-]*$")]
    is_base: bool
    part: str | None = None
    substitution: dict[str, Any] = {}
    differences: list[tuple[str, Any, Any]] = []
    expect: list[str] = []
    paper: float | None = None
    same_as: str | None = None
    not_run: str | None = None
    warnings: list[str] = []
    steps: tuple[int, int] | None = None
    candidates: list[StudyArm] = []
    chosen: dict[str, Any] | None = None
    recipes: dict[int, Recipe] = Field({}, exclude=True)
    identity: str = Field("", exclude=True)
    dataset: Any = Field(None, exclude=True)

    @property
    def recipe(self) -> Recipe:
        """The recipe with the first seed; the others differ in the seed alone."""
        return next(iter(self.recipes.values()))


def make_arms(study: Study, chosen: Mapping[str, Tree] | None = None) -> list[StudyArm]:
    """The base and every arm, each recipe complete and valid.

    `chosen`: by the arm's name, the values that were tuned for it.

    Raises:
        InputError: a name or a value of an arm is wrong; the arm is named.
        PluginError: a component cannot be used, or a preset cannot be read.
        DataError: the data is at hand, and damaged.
    """
    for metric in study.metrics:
        catalog().resolve("protocol", metric)
    opened: Opened = {}
    chosen = chosen or {}
    base = _tuned(study, BASE, study.label, {}, opened, chosen.get(BASE))
    arms = [base.model_copy(update={"expect": list(study.expect), "paper": study.paper})]
    for ablation in study.ablation:
        for i, substitution in enumerate(ablation.substitutions()):
            label = ablation.label[i] if ablation.label else _label(substitution, arms)
            name = _free(_slug(substitution), [arm.name for arm in arms])
            arm = _tuned(study, name, label, substitution, opened, chosen.get(name))
            stated = {
                "part": ablation.part,
                "expect": list(ablation.expect),
                "paper": ablation.paper[i] if ablation.paper else None,
                "not_run": ablation.skip or None,
            }
            arms.append(_compared(arm.model_copy(update=stated), arms))
    return arms


def arm_identity(recipe: Recipe, digest: str) -> str:
    """The identity of an arm's run with seed 0, on data of this digest."""
    training = recipe.training.model_copy(update={"seed": 0})
    return identity(make_lock(recipe.model_copy(update={"training": training}), digest, {}))


def known_digest(recipe: Recipe, dataset: Dataset | None) -> str:
    """The data's digest; where it is not at hand, its name and parameters."""
    if dataset is not None:
        return dataset.digest
    part = recipe.part("dataset")
    return f"not at hand: {part.id} {json.dumps(dict(part.params), sort_keys=True, default=str)}"


Opened = dict[str, Dataset | None]
"""Data sets that are open; most arms have the same."""


def _tuned(
    study: Study,
    name: str,
    label: str,
    substitution: Tree,
    opened: Opened,
    chosen: Tree | None,
) -> StudyArm:
    """An arm with its candidates, and with what was chosen of them."""
    arm = _arm(study, name, label, substitution, opened, chosen)
    if (tune := study.tune) is None:
        return arm
    length = max(1, round(tune.length * arm.recipe.training.epochs))
    shorter: Tree = {
        "training.epochs": length,
        "training.stop_on_collapse": tune.stop_on_collapse,
        "data.validation": tune.validation,
        "evaluation.protocols": [tune.metric],
    }
    if rungs := tune.rungs(length):
        shorter |= {"evaluation.online": [tune.metric], "evaluation.online_epochs": rungs[0]}
    candidates = [
        _arm(
            study, f"{name}-tune-{number}", f"{label}, {_told(each)}", substitution, opened,
            {**shorter, **each}, tune.seeds,
        ).model_copy(update={"substitution": each})
        for number, each in enumerate(tune.candidates())
    ]  # fmt: skip
    return arm.model_copy(update={"candidates": candidates, "chosen": chosen})


def _told(values: Tree) -> str:
    return ", ".join(f"{path.rpartition('.')[2]} {_shown(value)}" for path, value in values.items())


def _arm(
    study: Study,
    name: str,
    label: str,
    substitution: Tree,
    opened: Opened,
    more: Tree | None = None,
    seeds: tuple[int, ...] = (),
) -> StudyArm:
    """An arm. `more`: keys on top of the substitution. `seeds`: others than the study's."""
    seeds = seeds or study.seeds
    recipes = {seed: _recipe(study, label, substitution, seed, more or {}) for seed in seeds}
    first = recipes[seeds[0]]
    stated = first.data
    data = f"{stated.stream} {stated.validation} {stated.channels} {known_digest(first, None)}"
    if data not in opened:
        opened[data] = first.data_at_hand()
    computes = arm_identity(first, known_digest(first, opened[data]))
    return StudyArm(
        name=name,
        label=label,
        key=f"{name}-{computes[:8]}",
        is_base=not substitution,
        substitution=substitution,
        recipes=recipes,
        identity=computes,
        dataset=opened[data],
    )


def _compared(arm: StudyArm, others: Sequence[StudyArm]) -> StudyArm:
    """The arm with what tells it from the base, and the earlier one that has its figures too."""
    differing = differences(others[0].recipe.to_dict(), arm.recipe.to_dict())
    found: dict[str, Any] = {"differences": [*map(tuple, differing)]}
    if not arm.not_run:
        equal = (o for o in others if not o.not_run and o.identity == arm.identity)
        if same := next(equal, None):
            found |= {"key": same.key, "same_as": same.same_as or same.name}
    return arm.model_copy(update=found)


def _recipe(study: Study, label: str, substitution: Tree, seed: int, more: Tree) -> Recipe:
    base = {key: value for key, value in study.base.items() if key != "preset"}
    decided = {"training.seed": seed, "training.threads": study.threads}
    with located(f"arm {label!r}" if substitution else "the study's base"):
        return Recipe.make(study.preset, None, [base, substitution, more, decided])


def _label(substitution: Tree, arms: Sequence[StudyArm]) -> str:
    """What is done, `predictor removed` or `batch size 128`; with whole paths if an arm has that.

    A gradient policy that is removed is called by its name: `stop-gradient removed`.
    """
    words, policy = [], arms[0].recipe.gradient.name
    for path, value in substitution.items():
        if value == REMOVED and path in COMPONENTS:
            words.append(f"{policy if path == 'gradient' else path} removed")
        elif path == "change" and isinstance(value, list | tuple) and all(map(is_change, value)):
            words.append("; ".join(map(in_words, value)))
        else:
            own = path if path.partition(".")[0] in COMPONENTS else path.rpartition(".")[2]
            words.append(f"{re.sub('[._]', ' ', own)} {_shown(value)}")
    label = ", ".join(words)
    if label in (arm.label for arm in arms):
        return ", ".join(f"{path}: {_shown(value)}" for path, value in substitution.items())
    return label


def _slug(substitution: Mapping[str, Any]) -> str:
    words = [f"{path.rpartition('.')[2]}-{_shown(value)}" for path, value in substitution.items()]
    return re.sub(r"[^a-z0-9._-]+", "-", "-".join(words).lower()).strip("-.")[:60] or "arm"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        name = str(value.get("name", ""))
        rest = ",".join(f"{key}={each}" for key, each in flat(value).items() if key != "name")
        return ":".join(filter(None, (name, rest)))
    return "/".join(map(_shown, value)) if isinstance(value, list | tuple) else str(value)


def _free(name: str, taken: list[str]) -> str:
    names = (name if number == 1 else f"{name}-{number}" for number in range(1, len(taken) + 2))
    return next(free for free in names if free not in taken)
