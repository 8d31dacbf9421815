"""Whether a run's views need a colour that its images have not."""

from __future__ import annotations

import numpy as np

from simsiam_zoo.data.image import COLOUR, colour_of
from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe import Recipe

_TRIED = 256  # views; a thing that one in ten has is missed by chance in one of 10^11 cases


def check_views(recipe: Recipe) -> None:
    """Stop where views of other channels than three would need a colour. Raises InputError."""
    if recipe.data.channels != 3:
        for stage in recipe.stages():
            _refuse_colour(stage.recipe)


def _refuse_colour(recipe: Recipe) -> None:
    part = recipe.part("augmentation")
    augmentation, generator = part.create(), np.random.default_rng(0)
    where = f"data.channels = {recipe.data.channels}, and the augmentation {part.name}"
    if hasattr(augmentation, "apply"):
        raise InputError(
            f"{where} applies its views itself, to RGB", "Choose another augmentation."
        )
    drawn: set[str] = set()
    for number in range(_TRIED):
        drawn |= {*colour_of(augmentation.sample(generator, number % 2, (32, 32)))}
    if drawn:
        named = [p.name for p in part.entry.component.params if p.name.startswith(tuple(drawn))]
        off = " ".join(f"--set augmentation.{name}=0" for name in named)
        raise InputError(
            f"{where} changes {', '.join(name for name in COLOUR if name in drawn)}: only three"
            " channels have a colour",
            f"Say {off}." if off else "Choose another augmentation.",
        )
