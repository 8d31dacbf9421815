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

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from simsiam_zoo.data.inspection import why_unmeasurable
from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.runtime.folders import atomic_write_text
from simsiam_zoo.studies.arms import StudyArm, make_arms
from simsiam_zoo.studies.study import Study, Tune

PLAN = "study.json"
FEW_STEPS = 10
"""Steps an epoch below which a batch is as good as the whole data set, which the plan says."""

_COMPARED_ALIKE = {
    "the data": ("dataset.", "data.validation.", "data.channels."),
    "the budget": ("training.epochs.", "data.steps_per_epoch."),
    "the measuring": ("evaluation.crop.",),
}
"""What the arms of a fair table have in common: the beginnings of keys, each with a dot behind."""

OTHER_OUT = "Give the study another --out."
"""The way out of a folder that cannot be the study's."""


@dataclass(frozen=True)
class StudyJob:
    """One arm with one seed: one process, one run, and the folder of both.

    `metrics`: what the run is measured by. `until`: the epoch after which it stops for now, or 0.
    """

    arm: StudyArm
    seed: int
    folder: Path
    metrics: tuple[str, ...] = ()
    until: int = 0

    def __str__(self) -> str:
        return f"{self.arm.label}, seed {self.seed}"

    @property
    def steps(self) -> int:
        """Those that its run will have taken when it ends or stops; 0 where that is not known."""
        each, whole = self.arm.steps or (0, 0)
        return each * self.until or whole


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
    tune: Tune | None = None
    arms: Annotated[list[StudyArm], Field(min_length=1)]

    def own_arms(self) -> list[StudyArm]:
        """Those that are run."""
        return [arm for arm in self.arms if arm.same_as is None and arm.not_run is None]

    def jobs(self, folder: Path, planned: bool = False) -> Iterator[StudyJob]:
        """Every run, seed by seed, so that an interrupted study has all arms with some seeds.

        Without the arms whose values are yet to be chosen, unless all that is `planned` is asked.
        """
        arms = [a for a in self.own_arms() if planned or a.chosen is not None or not a.candidates]
        for seed in self.seeds:
            for arm in arms:
                yield StudyJob(arm, seed, job_folder(folder, arm.key, seed), self.metrics)

    def tuning_jobs(self, folder: Path, arms: Collection[str] | None = None) -> Iterator[StudyJob]:
        """The runs that choose the values of the arms of these names, by default of all."""
        for seed in self.tune.seeds if self.tune else ():
            for arm in self.own_arms():
                for each in arm.candidates if arms is None or arm.name in arms else ():
                    yield StudyJob(each, seed, job_folder(folder, each.key, seed))


def job_folder(study: Path, key: str, seed: int) -> Path:
    """Where one arm with one seed is."""
    return study / "jobs" / key / f"seed{seed}"


def missing_data(plan: StudyPlan) -> str | None:
    """Why the base's data is not at hand, in words; None where it is."""
    base = plan.arms[0]
    if base.dataset is None:
        try:
            base.recipe.open_data()
        except InputError as error:
            return error.what
    return None


def plan_study(name: str, study: Study, command: str = "") -> StudyPlan:
    """The plan of a study: every recipe valid, and sized where the data is at hand.

    Raises as `make_arms` does, and InputError where the base cannot be run.
    """
    arms = make_arms(study)
    for arm in arms:
        if arm.same_as is None and arm.not_run is None:
            arm.warnings = [*_unlike_base(arm)]
            _size(arm)
            if why := _unmeasurable(arm):
                arm.warnings.append(f"{why}: no top-1, the verdicts alone tell the arms apart")
                if "learned" in arm.expect:  # which nothing could tell
                    arm.expect.append("no-collapse-seen")
            for each in arm.candidates:
                if why := _unmeasurable(each):
                    hint = "Labels and held-out images of two classes are needed for it."
                    raise InputError(f"{why}, so nothing can choose among values", hint)
                _size(each)
                arm.not_run = arm.not_run or each.not_run
    return StudyPlan(
        title=study.title or name,
        description=study.description.strip(),
        study=name,
        preset=study.preset,
        metrics=study.metrics,
        seeds=study.seeds,
        threads=study.threads,
        command=command,
        tune=study.tune,
        arms=arms,
    )


def _unlike_base(arm: StudyArm) -> Iterator[str]:
    """What the difference from the base is of, beside the substitution that a table is about."""
    for what, keys in _COMPARED_ALIKE.items():
        found = [path for path, *_ in arm.differences if f"{path}.".startswith(keys)]
        if found:
            verb = "is" if len(found) == 1 else "are"
            yield f"{', '.join(found)} {verb} not the base's: the difference is of {what} too"


def told_once(arms: Iterable[tuple[str, Iterable[str]]]) -> Iterator[str]:
    """A line for each warning, with the arms that it is about: `every arm` if it is all of several.

    `arms`: label and warnings of each.
    """
    labels: dict[str, list[str]] = {}
    count = 0
    for label, warnings in arms:
        count += 1
        for warning in dict.fromkeys(warnings):
            labels.setdefault(warning, []).append(label)
    for warning, of in labels.items():
        yield f"{'every arm' if len(of) == count > 1 else ', '.join(of)}: {warning}"


def _unmeasurable(arm: StudyArm) -> str | None:
    """Why an arm's runs come to no figure, in words; None where they do or that is not known."""
    if arm.dataset is None or arm.recipe.data.stream:
        return None
    return why_unmeasurable(arm.dataset, fetch=False)


def _size(arm: StudyArm) -> None:
    """Say of the arm how many steps it takes, or why it cannot be run."""
    recipe = arm.recipe
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
    if arm.candidates and recipe.data.validation:
        arm.warnings += [
            "the images that choose its values are among those that it is reported on"
            " (data.validation); test images of their own would be fair"
        ]
    if steps < FEW_STEPS:
        images = "a stream" if samples is None else f"{samples:,} images"
        few = f"{steps} step{'s' if steps > 1 else ''} an epoch, {arm.steps[1]:,} in all"
        arm.warnings += [f"batch {recipe.training.batch_size} on {images}: {few}"]


def write_plan(plan: StudyPlan, folder: Path) -> None:
    """Write the plan into its folder. Raises InputError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write_text(folder / PLAN, plan.model_dump_json(indent=1) + "\n")
        for job in (*plan.tuning_jobs(folder), *plan.jobs(folder)):
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
