"""A study's plan: every arm and every run of it, written down before the first one starts.

    STUDY/
      study.json              the plan: all that the results need besides the runs' own folders
      jobs/<arm>-<digest>/seed<k>/
          recipe.toml         what to run
          log.txt             what its process printed
          status.json         how its process ended
          lock                held by the process that runs it
          run/                an ordinary run

The digest is of all that decides the figures, code and data too, so that an arm which was changed
runs anew beside what it was, and one that was not is not run again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from simsiam_zoo.catalog import catalog
from simsiam_zoo.data.shards import Dataset
from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import differences, identity, make_lock
from simsiam_zoo.runtime.folders import atomic_write_text
from simsiam_zoo.studies.study import Study, flat

PLAN = "study.json"
FEW_STEPS = 10
"""Steps an epoch below which a batch is as good as the whole data set, which the plan says."""

OTHER_OUT = "Give the study another --out."
"""The way out of a folder that cannot be the study's."""

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
    recipes: dict[int, Recipe] = Field({}, exclude=True)
    identity: str = Field("", exclude=True)
    dataset: Any = Field(None, exclude=True)


@dataclass(frozen=True)
class StudyJob:
    """One arm with one seed: one process, one run, and the folder of both."""

    arm: StudyArm
    seed: int
    folder: Path

    def __str__(self) -> str:
        return f"{self.arm.label}, seed {self.seed}"


class StudyPlan(BaseModel):
    """What a study (by name) comes to on this preset, with the data that is at hand: `study.json`.

    `command` is the command line that asked for it; of the arms the base is first.
    """

    format: Literal[1] = 1
    title: str
    description: str
    study: str
    preset: str
    metrics: tuple[str, ...]
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    threads: int
    command: str
    arms: Annotated[list[StudyArm], Field(min_length=1)]

    def jobs(self, folder: Path) -> Iterator[StudyJob]:
        """Every run, seed by seed, so that an interrupted study has all arms with some seeds."""
        for seed in self.seeds:
            for arm in self.arms:
                if arm.same_as is None and arm.not_run is None:
                    yield StudyJob(arm, seed, job_folder(folder, arm.key, seed))


def job_folder(study: Path, key: str, seed: int) -> Path:
    """Where one arm with one seed is."""
    return study / "jobs" / key / f"seed{seed}"


def plan_study(name: str, study: Study, command: str = "") -> StudyPlan:
    """The plan of a study: every recipe valid, and sized where the data is at hand.

    Raises as `make_arms` does, and InputError where the base cannot be run.
    """
    arms = make_arms(study)
    for arm in arms:
        if arm.same_as is None and arm.not_run is None:
            _size(arm)
    return StudyPlan(
        title=study.title or name,
        description=study.description.strip(),
        study=name,
        preset=study.preset,
        metrics=study.metrics,
        seeds=study.seeds,
        threads=study.threads,
        command=command,
        arms=arms,
    )


def _size(arm: StudyArm) -> None:
    """Say of the arm how many steps it takes, or why it cannot be run."""
    recipe = next(iter(arm.recipes.values()))
    try:
        samples, steps = recipe.sizes(arm.dataset)
    except InputError as error:  # the batch does not go with the data
        if arm.is_base:
            raise error.at("the study's base") from None
        arm.not_run = error.what
        return
    if steps is None:
        return
    arm.steps = steps, steps * recipe.training.epochs
    if steps < FEW_STEPS:
        images = "a stream" if samples is None else f"{samples:,} images"
        few = f"{steps} step{'s' if steps > 1 else ''} an epoch, {arm.steps[1]} in all"
        arm.warnings = [f"batch {recipe.training.batch_size} on {images}: {few}"]


def refuse_other_folder(folder: Path) -> None:
    """Stop where a study would land in a folder that holds something else; nothing is written."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is no folder", OTHER_OUT)
    other = folder.is_dir() and not (folder / PLAN).exists()
    if other and any(entry.name != "lock" for entry in folder.iterdir()):
        raise InputError(f"{folder} holds something that is no study", OTHER_OUT)


def write_plan(plan: StudyPlan, folder: Path) -> None:
    """Write the plan into its folder. Raises InputError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write_text(folder / PLAN, plan.model_dump_json(indent=1) + "\n")
        for job in plan.jobs(folder):
            job.folder.mkdir(parents=True, exist_ok=True)
            atomic_write_text(job.folder / "recipe.toml", job.arm.recipes[job.seed].to_toml())
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}", OTHER_OUT) from None


def read_plan(folder: Path) -> StudyPlan:
    """The plan in a study's folder, without what is needed to run it: recipes and data.

    Raises InputError where there is no study, DataError where it is damaged or of another version.
    """
    path = folder / PLAN
    way_out = "The study's command writes it anew; its complete runs are kept."
    try:
        plan = StudyPlan.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"there is no study in {folder}", f"It would hold a {PLAN}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        at = ".".join(str(step) for step in error.errors()[0]["loc"]) or "JSON"
        raise DataError(f"{path} is no plan that this version reads: {at}", way_out) from None
    names = {arm.name for arm in plan.arms}
    for arm in plan.arms:
        if arm.same_as is not None and arm.same_as not in names:
            raise DataError(f"{path} is damaged: it has no arm {arm.same_as!r}", way_out)
    return plan


def make_arms(study: Study) -> list[StudyArm]:
    """The base and every arm, each recipe complete and valid.

    Raises:
        InputError: a name or a value of an arm is wrong; the arm is named.
        PluginError: a component cannot be used, or a preset cannot be read.
        DataError: the data is at hand, and damaged.
    """
    for metric in study.metrics:
        catalog().resolve("protocol", metric)
    opened: dict[str, Dataset | None] = {}
    base = _arm(study, BASE, study.label, {}, opened)
    arms = [base.model_copy(update={"expect": list(study.expect), "paper": study.paper})]
    for ablation in study.ablation:
        for i, substitution in enumerate(ablation.substitutions()):
            words = [f"{path}: {_shown(value)}" for path, value in substitution.items()]
            label = ablation.label[i] if ablation.label else ", ".join(words)
            name = _free(_slug(substitution), [arm.name for arm in arms])
            stated = {
                "part": ablation.part,
                "expect": list(ablation.expect),
                "paper": ablation.paper[i] if ablation.paper else None,
                "not_run": ablation.skip or None,
            }
            arm = _arm(study, name, label, substitution, opened).model_copy(update=stated)
            arms.append(_compared(arm, arms))
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


def _arm(
    study: Study,
    name: str,
    label: str,
    substitution: dict[str, Any],
    opened: dict[str, Dataset | None],
) -> StudyArm:
    """An arm. `opened`: data sets that are open; most arms have the same."""
    recipes = {seed: _recipe(study, label, substitution, seed) for seed in study.seeds}
    first = recipes[study.seeds[0]]
    data = f"{first.data.stream} {first.data.validation} {known_digest(first, None)}"
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
    seed, base = next(iter(others[0].recipes.items()))
    found: dict[str, Any] = {
        "differences": [*map(tuple, differences(base.to_dict(), arm.recipes[seed].to_dict()))]
    }
    if not arm.not_run:
        equal = (o for o in others if not o.not_run and o.identity == arm.identity)
        if same := next(equal, None):
            found |= {"key": same.key, "same_as": same.same_as or same.name}
    return arm.model_copy(update=found)


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
    names = (name if number == 1 else f"{name}-{number}" for number in range(1, len(taken) + 2))
    return next(free for free in names if free not in taken)
