"""Checks of a plugin's light module and its descriptors, and of presets and studies."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from typing import Any

import torch

from simsiam_zoo.catalog import FILE_KINDS, KINDS, PARTS, load_target
from simsiam_zoo.catalog.discovery import SELECTION
from simsiam_zoo.model.build import Parts, build
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.studies.arms import make_arms
from simsiam_zoo.studies.study import read_study
from simsiam_zoo.testing.checks import PLUGIN, ComponentUnderTest, check, expect

_FACTORY_KINDS = tuple(kind for kind in KINDS if kind not in FILE_KINDS)

_LISTED = """
import sys
from simsiam_zoo.catalog import catalog
known = catalog()
for kind in sys.argv[1:]:
    for family in known.families(kind):
        known.members(family)
print("torch" in sys.modules)
"""


@check(
    "registration",
    PLUGIN,
    asks="a plugin names its components without importing torch, so that listing stays instant.",
    way_out="keep the module of the entry point light, and import torch only in the modules that"
    " targets name.",
    basic=True,
)
def registers_without_torch(tested: ComponentUnderTest) -> None:
    """In a process of its own, since here torch has long been imported."""
    plugin = tested.plugin
    expect(plugin.status == "ok", f"{plugin.supplier} is {plugin.status}: {plugin.cause}")
    done = subprocess.run(
        [sys.executable, "-c", _LISTED, *KINDS],
        env={
            **os.environ,
            SELECTION: plugin.distribution,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
        capture_output=True,
        text=True,
    )
    expect(done.returncode == 0, f"listing it fails: {done.stderr.strip()[-300:]}")
    expect(done.stdout.split() == ["False"], f"importing {plugin.module} imports torch")


@check(
    "summary",
    *KINDS,
    asks="a component says in one line what it is.",
    way_out="give the descriptor a summary of at most 100 characters, without a line break.",
)
def has_a_summary(tested: ComponentUnderTest) -> None:
    """It is what `simsiam-zoo list` shows."""
    text = tested.resolved.entry.component.summary
    expect(text.strip(), "its summary is empty")
    expect(text == " ".join(text.split()), "its summary is more than one line")
    expect(len(text) <= 100, f"its summary has {len(text)} characters")


@check(
    "target",
    *_FACTORY_KINDS,
    asks="the target, 'module:attribute', can be imported and called.",
    way_out="check the spelling in the descriptor, that the module is in the wheel, and that what"
    " it imports is among the package's dependencies.",
    basic=True,
)
def target_is_importable(tested: ComponentUnderTest) -> None:
    """Import it as a build does."""
    expect(callable(_factory(tested)), "its target is nothing that can be called")


@check(
    "parameters",
    *_FACTORY_KINDS,
    asks="the factory takes exactly the params of its descriptor, without defaults of its own, and"
    " of other keywords only those that the host supplies.",
    way_out="make the factory's keywords and the descriptor's params agree. The host always gives"
    " every param, so that its default stands in the descriptor alone.",
    basic=True,
)
def parameters_match_the_signature(tested: ComponentUnderTest) -> None:
    """Names, no second default, and that all can be given by keyword."""
    component = tested.resolved.entry.component
    signature = inspect.signature(_factory(tested)).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.values())
    declared = {param.name: param for param in component.params}
    for name, param in declared.items():
        expect(takes_any or name in signature, f"{component.target} takes no {name}")
        default = signature[name].default if name in signature else inspect.Parameter.empty
        expect(
            default is inspect.Parameter.empty,
            f"the default of {name}, {param.default!r} in its descriptor, is stated again by"
            f" {component.target}, as {default!r}",
        )
    for name, own in signature.items():
        expect(own.kind is not own.POSITIONAL_ONLY, f"{name} cannot be given by keyword")
        if own.kind in (own.KEYWORD_ONLY, own.POSITIONAL_OR_KEYWORD):
            host = ", ".join(sorted(tested.host)) or "none"
            expect(
                name in declared or name in tested.host,
                f"{component.target} takes {name}, which is no param of its descriptor, and the"
                f" host supplies {host}",
            )


def _factory(tested: ComponentUnderTest) -> Any:
    return load_target(tested.resolved.entry.component.target, tested.label)


@check(
    "recipe",
    "preset",
    asks="a preset is a TOML recipe inside the package, complete with what it extends, and valid.",
    way_out="say [part] name = ... for parts that it changes, put the file into the wheel, and name"
    " it as target='package:file.toml'.",
    basic=True,
)
def a_preset_is_a_recipe(tested: ComponentUnderTest) -> None:
    """Read as `train --preset` reads it."""
    recipe = Recipe.make(tested.resolved.name)
    expect(recipe.preset == tested.resolved.name, f"its recipe is that of {recipe.preset}")


@check(
    "model",
    "preset",
    asks="the five parts of a preset fit together.",
    way_out="try simsiam-zoo train --preset NAME --dry-run, which names the part at fault.",
)
def a_presets_model_builds(tested: ComponentUnderTest) -> None:
    """On the meta device: shapes alone, however large the model is."""
    recipe = Recipe.make(tested.resolved.name)
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
def a_study_has_arms(tested: ComponentUnderTest) -> None:
    """Every arm a complete recipe, at least one beside the base."""
    _, study = read_study(tested.resolved.id)
    arms = make_arms(study)
    expect(len(arms) > 1, "has no arm beside its base")
    expect(not all(arm.same_as for arm in arms[1:]), "has no arm that differs from its base")
