"""The figure that a preset's source published: what a run of it is compared with.

`[expected]` in a preset's file. It is no key of a recipe and no part of a run's identity, and a
preset that extends another does not have that one's figure.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError

from simsiam_zoo.catalog import catalog
from simsiam_zoo.errors import InputError, PluginError
from simsiam_zoo.recipe.layers import COMPONENTS, read_component_file
from simsiam_zoo.recipe.lock import differences
from simsiam_zoo.recipe.recipe import Recipe, operational_paths
from simsiam_zoo.recipe.sections import Section

_MEASURING = ("evaluation", "logging", "preset", "dataset")
_FREE = ("training.seed", "training.precision", "data.views")


class Expected(Section):
    """A published figure: top-1 in per cent, how it was measured, by whom, and where it stands.

    `images`: how many it was trained on; `gpu_hours`: as its source states them; `data`: the
    command that packs what lies at `download`.
    """

    figure: Annotated[float, Field(gt=0, le=100)]
    protocol: str
    by: str
    source: str
    images: Annotated[int, Field(gt=0)]
    data: str
    download: str
    note: str = ""
    gpu_hours: float | None = None

    def __str__(self) -> str:
        return f"{self.figure:.1f} % by {self.protocol} ({self.by})"

    def cost(self, epochs: int) -> str:
        """What a run of so many epochs takes, as far as it is known."""
        passes = f"{epochs:,} x {self.images:,} images"
        hours = "" if self.gpu_hours is None else f", {self.gpu_hours:g} GPU-hours there"
        return passes + hours


def expected_of(preset: str) -> Expected | None:
    """The figure that a preset states; None where it states none.

    Raises InputError where there is no such preset, PluginError where its file is damaged.
    """
    table = read_component_file(catalog().resolve("preset", preset)).get("expected")
    if table is None:
        return None
    try:
        return Expected.model_validate(table)
    except ValidationError as error:
        where = ".".join(map(str, ("expected", *error.errors()[0]["loc"])))
        raise PluginError(f"preset {preset}: {where}: {error.errors()[0]['msg']}") from None


def described(preset: str) -> dict[str, Any] | None:
    """`expected_of` as JSON has it, with the cost in words."""
    if (found := expected_of(preset)) is None:
        return None
    epochs = Recipe.make(preset, measure=False).training.epochs
    return {**found.model_dump(), "epochs": epochs, "cost": found.cost(epochs), "measured": False}


def published_for(recipe: Recipe) -> tuple[Expected, list[str]] | None:
    """The figure of the preset that a run was made of, and the keys in which the run differs.

    None where the preset states none, or is not here any more. The data, the seed and what is
    measured are not compared.
    """
    try:
        found = expected_of(recipe.preset)
        plain = None if found is None else Recipe.make(recipe.preset, measure=False)
    except (InputError, PluginError):
        return None
    if found is None or plain is None:
        return None
    there, here = _settings(plain), _settings(recipe)
    return found, [difference.path for difference in differences(there, here)]


def _settings(recipe: Recipe) -> dict[str, Any]:
    tree = recipe.to_dict()
    for path in (*operational_paths(), *_FREE):
        section, _, key = path.partition(".")
        tree[section].pop(key, None)
    for section in _MEASURING:
        tree.pop(section, None)
    for kind in COMPONENTS:
        own = {p.name: p.operational for p in recipe.part(kind).entry.component.params}
        if kind in tree:
            tree[kind] = {key: v for key, v in tree[kind].items() if not own.get(key)}
    return tree
