"""What a study's tuning runs, what that found, and which values it chooses for each arm.

Each arm has the same candidates, and each candidate is trained and measured alike: the best mean of
the metric over the tuning's seeds is chosen, on images that were held out of the training images. A
run that diverged, failed or was stopped by halving has none. No test image is read on the way.

With halving, all candidates of an arm come to a first rung, an epoch of their runs; the better half
of them, by the validation metric there, goes on from its checkpoints to the next (Jamieson &
Talwalkar 2016, arXiv:1502.07943). All is read from the runs' folders, so that a study which is
given again finds the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from simsiam_zoo.errors import DataError
from simsiam_zoo.metrics import TOP1, TRAINED, finite, read_rows
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.layers import Tree
from simsiam_zoo.studies.arms import StudyArm, make_arms
from simsiam_zoo.studies.job import is_complete, read_run_result
from simsiam_zoo.studies.plan import StudyJob, StudyPlan, job_folder
from simsiam_zoo.studies.study import Study, Tune, parse_study

OWN_SEED = 100
"""Of the runs that choose for one run, unless it has that seed itself."""


def rounds(plan: StudyPlan, folder: Path, names: Collection[str]) -> Iterator[list[StudyJob]]:
    """The runs that choose for the arms of these names, a rung of all of them at a time.

    The next round depends on what the last one measured: ask for it when that has ended.
    """
    if plan.tune is None:
        return
    races = [race(folder, arm, plan.tune) for arm in plan.own_arms() if arm.name in names]
    for at_once in itertools.zip_longest(*races, fillvalue=(0, ())):
        yield [
            StudyJob(each, seed, job_folder(folder, each.key, seed), until=rung)
            for seed in plan.tune.seeds
            for rung, candidates in at_once
            for each in candidates
        ]


def race(folder: Path, arm: StudyArm, tune: Tune) -> Iterator[tuple[int, list[StudyArm]]]:
    """Each rung of an arm with the candidates that run to it; last 0, the end of the run."""
    left = arm.candidates
    for rung in tune.rungs(left[0].recipe.training.epochs) if left else ():
        yield rung, left
        means = [mean_at(folder, each, tune, rung) for each in left]
        known = [-1.0 if mean is None else mean for mean in means]
        better = sorted(range(len(left)), key=lambda i: -known[i])[: -(-len(left) // 2)]
        left = [left[i] for i in sorted(better)]
    yield 0, left


def all_ended(folder: Path, arm: StudyArm, tune: Tune) -> bool:
    """Whether the candidates of an arm are complete, but for those that halving stopped."""
    for rung, left in race(folder, arm, tune):
        jobs = (job_folder(folder, each.key, seed) for each in left for seed in tune.seeds)
        if not all(has_reached(job, rung) for job in jobs):
            return False
    return True


def has_reached(folder: Path, rung: int) -> bool:
    """Whether a job's run is complete, or has its figure of a rung."""
    return is_complete(folder, ()) or rung in figures(folder)


def candidate_means(folder: Path, arm: StudyArm, tune: Tune) -> list[float | None]:
    """The mean top-1 of each candidate over the seeds; None where one of them has none."""
    return [mean_at(folder, each, tune, 0) for each in arm.candidates]


def mean_at(folder: Path, candidate: StudyArm, tune: Tune, rung: int) -> float | None:
    """A candidate's mean top-1 at a rung; 0, or where it ended before: of its end."""
    found = []
    for seed in tune.seeds:
        job = job_folder(folder, candidate.key, seed)
        share = figures(job).get(rung)
        found.append(measured(job) if share is None else share)
    values = [value for value in found if value is not None]
    return math.fsum(values) / len(values) if len(values) == len(found) else None


def measured(folder: Path) -> float | None:
    """The validation figure of a run; None where it has none, or diverged."""
    with suppress(DataError):
        result = read_run_result(folder)
        if result is not None and result.verdict != "diverged":
            for score in result.figures:
                if score.network == TRAINED:
                    return score.top1
    return None


def figures(folder: Path) -> dict[int, float]:
    """What a job's run measured on the way: epoch → share of validation images that was right."""
    return {
        int(row["epoch"]): share
        for row in read_rows(folder / "run" / "metrics.jsonl")
        for column in TOP1.columns([row])[:1]
        if (share := finite(row[column])) is not None
    }


def stopped_at(folder: Path, candidate: StudyArm, tune: Tune) -> tuple[int, float] | None:
    """Where a candidate stopped that halving left out: its last epoch, and its mean there."""
    jobs = [job_folder(folder, candidate.key, seed) for seed in tune.seeds]
    last = {max(figures(job), default=0) for job in jobs}
    if not tune.halving or len(last) > 1 or 0 in last or any(is_complete(j, ()) for j in jobs):
        return None
    rung = last.pop()
    mean = mean_at(folder, candidate, tune, rung)
    return None if mean is None else (rung, mean)


def study_of_run(recipe: Recipe, keys: Tree) -> Study:
    """The recipe alone, with what a run's failure often lies in: lr, the predictor's lr, crops.

    `keys`: of `[tune]`, but for ranges and seeds.

    Draws lie about the recipe's own values, which are a candidate too: an lr of a quarter to four
    times it, a third to three times the predictor's, smallest crops of 0.08 to 0.6 of the area.
    """
    tree = recipe.to_dict()
    own = {"optim.lr": recipe.optim.lr}
    ranges = {"optim.lr": (recipe.optim.lr / 4, recipe.optim.lr * 4)}
    scale = recipe.optim.part("predictor").lr_scale
    if recipe.part("predictor").params and scale > 0:  # there is something to train
        own["optim.parts.predictor.lr_scale"] = scale
        ranges["optim.parts.predictor.lr_scale"] = (scale / 3, scale * 3)
    crop = recipe.part("augmentation").params.get("min_scale")
    if isinstance(crop, int | float):
        own["augmentation.min_scale"] = float(crop)
        ranges["augmentation.min_scale"] = (min(0.08, crop), max(0.6, crop))
    seed = recipe.training.seed
    tune = {"ranges": ranges, "beside": [own], "seeds": [OWN_SEED + (seed == OWN_SEED)], **keys}
    return parse_study(
        {
            "title": "Tuning one run",
            "base": tree,
            "label": "run",
            "expect": [],
            "seeds": [seed],
            "tune": tune,
        },
        "the run's study",
    )


def choose(plan: StudyPlan, study: Study, folder: Path, ended: Collection[str] = ()) -> StudyPlan:
    """The plan with the best values in the recipes of every arm whose candidates are complete.

    Those of the `ended` arms have ended: one that failed is left out, and an arm that has no other
    cannot be run.
    """
    if plan.tune is None:
        return plan
    chosen: dict[str, Tree] = {}
    failed: dict[str, str] = {}
    for arm in plan.own_arms():
        if arm.name in ended or all_ended(folder, arm, plan.tune):
            values = best(arm.candidates, candidate_means(folder, arm, plan.tune))
            if values is None:
                failed[arm.name] = "no run that was to choose its values came to a figure"
            else:
                chosen[arm.name] = values
    if not chosen and not failed:
        return plan
    # What is the same as another arm stays so: it has that one's values.
    for arm in plan.arms:
        if arm.same_as in chosen:
            chosen[arm.name] = chosen[arm.same_as]
    sized = {arm.name: (arm.steps, arm.warnings) for arm in plan.arms}
    arms = make_arms(study, chosen)
    for arm in arms:
        arm.steps, arm.warnings = sized[arm.name]
        arm.not_run = arm.not_run or failed.get(arm.name)
    return plan.model_copy(update={"arms": arms})


def best(candidates: Sequence[StudyArm], means: Sequence[float | None]) -> Tree | None:
    """The values of the candidate with the highest mean, the first of equal ones."""
    known = [(mean, -at) for at, mean in enumerate(means) if mean is not None]
    return candidates[-max(known)[1]].substitution if known else None


def at_edge(values: Tree, candidates: Sequence[Tree]) -> list[str]:
    """The keys whose value is the smallest or the largest of several numbers that were tried."""
    found = []
    for key, value in values.items():
        tried = [each[key] for each in candidates]
        numbers = all(isinstance(n, int | float) and not isinstance(n, bool) for n in tried)
        if numbers and len(set(tried)) > 1 and value in (min(tried), max(tried)):
            found.append(key)
    return found
