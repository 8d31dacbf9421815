"""What a study's tuning found, and which values it chooses for each arm.

Each arm has the same candidates, and each candidate was trained and measured alike: the best mean
of the metric over the tuning's seeds is chosen, on images that were held out of the training
images. A run that diverged, failed or was stopped by halving has none. No test image is read on the
way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.layers import Tree
from simsiam_zoo.studies.arms import StudyArm, make_arms
from simsiam_zoo.studies.candidates import all_ended, candidate_means
from simsiam_zoo.studies.plan import StudyPlan
from simsiam_zoo.studies.study import Study, parse_study

OWN_SEED = 100
"""Of the runs that choose for one run, unless it has that seed itself."""


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
        {"title": "Tuning one run", "base": tree, "label": "run", "seeds": [seed], "tune": tune},
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
