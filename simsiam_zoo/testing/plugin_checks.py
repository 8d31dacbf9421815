"""Checks of a plugin's light module and its descriptors, and of presets and studies."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import torch

from simsiam_zoo.catalog import FILE_KINDS, HOST_SUPPLIED, KINDS, PARTS, load_target
from simsiam_zoo.catalog.discovery import SELECTION
from simsiam_zoo.model.build import build
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.expected import expected_of
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


@check(PLUGIN, basic=True)
def registration(tested: ComponentUnderTest) -> None:
    """A plugin names its components without importing torch, so that listing stays instant.

    The way out: keep the module of the entry point light, and import torch only in the modules that
    targets name.
    """
    plugin = tested.plugin
    expect(plugin.status == "ok", f"{plugin.supplier} is {plugin.status}: {plugin.cause}")
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(  # in this process torch has long been imported
        [sys.executable, "-c", _LISTED, *KINDS],
        env={**os.environ, SELECTION: plugin.distribution, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    expect(done.returncode == 0, f"listing it fails: {done.stderr.strip()[-300:]}")
    expect(done.stdout.split() == ["False"], f"importing {plugin.module} imports torch")


@check(*_FACTORY_KINDS, basic=True)
def parameters(tested: ComponentUnderTest) -> None:
    """The target can be imported, and takes exactly the params of its descriptor, without defaults
    of its own, and of other keywords only those that the host supplies.

    The way out: see that the module is in the wheel and its imports among the dependencies, and
    make keywords and params agree. The host gives every param: its default stands in the
    descriptor alone.
    """
    component = tested.resolved.entry.component
    factory = load_target(component.target, tested.label)
    expect(callable(factory), "its target is nothing that can be called")
    signature = inspect.signature(factory).parameters
    host = HOST_SUPPLIED.get(tested.kind, frozenset())
    host |= frozenset() if tested.resolved.entry.member is None else {"name"}
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
            expect(
                name in declared or name in host,
                f"{component.target} takes {name}, which is no param of its descriptor, and the"
                f" host supplies {', '.join(sorted(host)) or 'none'}",
            )


@check("preset")
def recipe(tested: ComponentUnderTest) -> None:
    """A preset is a TOML recipe inside the package, complete with what it extends, and valid, and
    its five parts fit together.

    The way out: say [part] name = ... for parts that it changes, put the file into the wheel, and
    try simsiam-zoo train --preset NAME --dry-run.
    """
    recipe = Recipe.make(tested.resolved.name, measure=False)
    expected_of(tested.resolved.id)  # raises where it is damaged
    expect(recipe.preset == tested.resolved.name, f"its recipe is that of {recipe.preset}")
    parts = {kind: recipe.part(kind) for kind in PARTS}
    with torch.device("meta"):  # shapes alone, however large the model is
        siamese = build(parts, recipe.data.image_size, 1000, 10, 100, channels=recipe.data.channels)
    expect(next(siamese.backbone.parameters(), None) is not None, "its backbone has no parameters")


@check("study")
def arms(tested: ComponentUnderTest) -> None:
    """A study is a TOML file in the package whose arms are valid recipes, each another one.

    The way out: try simsiam-zoo ablate NAME --dry-run, which names the arm that is wrong.
    """
    _, study = read_study(tested.resolved.id)
    arms = make_arms(study)
    expect(len(arms) > 1, "has no arm beside its base")
    expect(not all(arm.same_as for arm in arms[1:]), "has no arm that differs from its base")
