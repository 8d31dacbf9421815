"""Checks of presets and studies: TOML files inside a package."""

from __future__ import annotations

import torch

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.model.build import Parts, build
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.studies.arms import make_arms
from simsiam_zoo.studies.study import read_study
from simsiam_zoo.testing.checks import check, expect
from simsiam_zoo.testing.plugins import Subject


@check(
    "recipe",
    "preset",
    asks="a preset is a TOML recipe inside the package, complete with what it extends, and valid.",
    way_out="say [part] name = ... for parts that it changes, put the file into the wheel, and name"
    " it as target='package:file.toml'.",
    basic=True,
)
def a_preset_is_a_recipe(subject: Subject) -> None:
    """Read as `train --preset` reads it."""
    recipe = Recipe.make(subject.part.name)
    expect(recipe.preset == subject.part.name, f"its recipe is that of {recipe.preset}")


@check(
    "model",
    "preset",
    asks="the five parts of a preset fit together.",
    way_out="try simsiam-zoo train --preset NAME --dry-run, which names the part at fault.",
)
def a_presets_model_builds(subject: Subject) -> None:
    """On the meta device: shapes alone, however large the model is."""
    recipe = Recipe.make(subject.part.name)
    parts = Parts(**{kind: recipe.part(kind) for kind in PARTS})
    with torch.device("meta"):
        siamese = build(parts, recipe.data.image_size, 1000, 10, 100)
    expect(next(siamese.backbone.parameters(), None) is not None, "its backbone has no parameters")


@check(
    "arms",
    "study",
    asks="a study is a TOML file in the package whose arms are valid recipes, each another one.",
    way_out="try simsiam-zoo ablate NAME --dry-run, which names the arm that is wrong.",
)
def a_study_has_arms(subject: Subject) -> None:
    """Every arm a complete recipe, at least one beside the base."""
    _, study = read_study(subject.part.id)
    arms = make_arms(study)
    expect(len(arms) > 1, "has no arm beside its base")
    expect(not all(arm.same_as for arm in arms[1:]), "has no arm that differs from its base")
