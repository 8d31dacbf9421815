"""A study's plan: every arm and every run of it, written down before the first one starts.

    STUDY/
      study.json              the plan: all that the results need besides the runs' own folders
      jobs/<arm>-<digest>/seed<k>/
          recipe.toml         what to run
          job.json            the digest, code and data that it was planned with
          log.txt             what its process printed
          status.json         how its process ended
          lock                held by the process that runs it
          run/                an ordinary run

The digest is of all that decides the figures, code and data too, so that an arm which was changed
runs anew beside what it was, and one that was not is not run again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.sizes import sizes
from simsiam_zoo.runtime.folders import atomic_write_text
from simsiam_zoo.studies.arms import StudyArm, arm_digest, make_arms
from simsiam_zoo.studies.study import Study

PLAN = "study.json"
JOB = "job.json"
FEW_STEPS = 10
"""Steps an epoch below which a batch is as good as the whole data set, which the plan says."""


@dataclass(frozen=True)
class StudyJob:
    """One arm with one seed: one process, one run."""

    arm: str
    label: str
    seed: int
    folder: Path
    recipe: Recipe
    steps: int | None

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / "run"


@dataclass(frozen=True)
class StudyPlan:
    """What a study comes to on this preset, with the data that is at hand.

    Attributes:
        name: of the study.
        study: as it was read.
        arms: the base first.
        steps: by arm: steps an epoch, and in all; None where the data is not at hand.
        warnings: by arm, what to know before reading its figures.
        not_run: by arm, why it cannot be run at all.
        command: what was asked for, on a command line.
    """

    name: str
    study: Study
    arms: list[StudyArm]
    steps: dict[str, tuple[int, int] | None] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    command: str = ""

    def jobs(self, folder: Path) -> Iterator[StudyJob]:
        """Every run, seed by seed, so that an interrupted study has all arms with some seeds."""
        for seed in self.study.seeds:
            for arm in self.arms:
                if arm.same_as is None and arm.name not in self.not_run:
                    steps = self.steps.get(arm.name)
                    yield StudyJob(
                        arm.name,
                        arm.label,
                        seed,
                        job_folder(folder, arm.key, seed),
                        arm.recipes[seed],
                        None if steps is None else steps[1],
                    )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for `study.json`."""
        study = self.study
        return {
            "format": 1,
            "title": study.title or self.name,
            "description": study.description.strip(),
            "study": self.name,
            "preset": study.preset,
            "metrics": list(study.metrics),
            "seeds": list(study.seeds),
            "threads": study.threads,
            "command": self.command,
            "arms": [
                {
                    "name": arm.name,
                    "label": arm.label,
                    "part": arm.part,
                    "is_base": arm.is_base,
                    "same_as": arm.same_as,
                    "substitution": dict(arm.substitution),
                    "differences": [list(each) for each in arm.differences],
                    "expect": list(arm.expect) or None,
                    "paper": arm.paper,
                    "warnings": self.warnings.get(arm.name, []),
                    "not_run": self.not_run.get(arm.name),
                    "key": arm.key,
                }
                for arm in self.arms
            ],
        }


def job_folder(study: Path, key: str, seed: int) -> Path:
    """Where one arm with one seed is."""
    return study / "jobs" / key / f"seed{seed}"


def plan_study(name: str, study: Study, command: str = "") -> StudyPlan:
    """The plan of a study: every recipe valid, and sized where the data is at hand.

    Raises:
        InputError: a name or a value of an arm is wrong, or the base cannot be run.
        PluginError: a component cannot be used.
    """
    arms = make_arms(study)
    plan = StudyPlan(name, study, arms, command=command)
    for arm in arms:
        if arm.same_as is not None:
            continue
        if arm.skip:
            plan.not_run[arm.name] = arm.skip
            continue
        recipe = arm.recipes[study.seeds[0]]
        try:
            samples, steps = sizes(recipe, arm.dataset)
        except InputError as error:  # the batch does not go with the data
            if arm.is_base:
                raise InputError(f"the study's base: {error.what}", error.hint) from None
            plan.not_run[arm.name] = error.what
            continue
        if steps is None:
            plan.steps[arm.name] = None
            continue
        plan.steps[arm.name] = steps, steps * recipe.training.epochs
        if steps < FEW_STEPS:
            images = "a stream" if samples is None else f"{samples:,} images"
            plan.warnings[arm.name] = [
                f"batch {recipe.training.batch_size} on {images}: {steps}"
                f" step{'s' if steps > 1 else ''} an epoch, {steps * recipe.training.epochs} in all"
            ]
    return plan


def refuse_other_folder(folder: Path) -> None:
    """Stop where a study would land in a folder that holds something else; nothing is written.

    Raises:
        InputError: it does, or it is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is no folder", "Give the study another --out.")
    other = folder.is_dir() and not (folder / PLAN).exists()
    if other and any(entry.name != "lock" for entry in folder.iterdir()):
        raise InputError(
            f"{folder} holds something that is no study", "Give the study another --out."
        )


def write_plan(plan: StudyPlan, folder: Path) -> None:
    """Write the plan into the study's folder.

    Raises:
        InputError: the folder cannot be written, or holds something else.
    """
    refuse_other_folder(folder)
    locks = {arm.name: arm.lock for arm in plan.arms}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(plan.to_dict(), indent=1, default=str)
        atomic_write_text(folder / PLAN, text + "\n")
        for job in plan.jobs(folder):
            job.folder.mkdir(parents=True, exist_ok=True)
            atomic_write_text(job.folder / "recipe.toml", job.recipe.to_toml())
            lock = locks[job.arm]
            planned = {"digest": arm_digest(lock), "code": lock["code"], "data": lock["data"]}
            atomic_write_text(job.folder / JOB, json.dumps(planned) + "\n")
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written: {error.strerror}", "Give the study another --out."
        ) from None


class _PlannedArm(BaseModel):
    name: str
    label: str
    part: str | None
    is_base: bool
    same_as: str | None
    substitution: dict[str, Any]
    differences: list[tuple[str, Any, Any]]
    expect: list[str] | None
    paper: float | None
    warnings: list[str]
    not_run: str | None
    key: Annotated[str, Field(pattern=r"^[a-z0-9_-][a-z0-9._-]*$")]  # names a folder


class _Plan(BaseModel):
    """What `study.json` holds; it may come from anywhere."""

    format: Literal[1]
    title: str
    description: str
    study: str
    preset: str
    metrics: list[str]
    seeds: Annotated[list[int], Field(min_length=1)]
    threads: int
    command: str
    arms: Annotated[list[_PlannedArm], Field(min_length=1)]


def read_plan(folder: Path) -> dict[str, Any]:
    """The plan in a study's folder, as plain values.

    Raises:
        InputError: there is no study.
        DataError: the file is damaged, or of another version.
    """
    path = folder / PLAN
    way_out = "The study's command writes it anew; its complete runs are kept."
    try:
        plan = _Plan.model_validate_json(path.read_bytes())
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
    return plan.model_dump(mode="json")
