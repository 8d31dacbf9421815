"""Whether a run's images have the channels that its recipe says, and its views need no others."""

from __future__ import annotations

import numpy as np

from simsiam_zoo.data.bands import band_format
from simsiam_zoo.data.decode import as_stored
from simsiam_zoo.data.image import COLOUR, colour_of
from simsiam_zoo.data.shards import Dataset
from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.recipe import Recipe

_TRIED = 256  # views; a thing that one in ten has is missed by chance in one of 10^11 cases


def check_channels(recipe: Recipe, dataset: Dataset) -> None:
    """Stop where the first training image has other channels, or views would need a colour.

    Nothing is fetched for it: of remote shards and of streams the images are not looked at. Raises
    InputError.
    """
    channels, shards = recipe.data.channels, dataset.train
    if len(shards) and shards.cache is None:
        try:
            image = shards.read(0).image
            plain = channels == 3 and not band_format(bytes(image[:8]))
            found = channels if plain else as_stored(image).shape[2]
        except DataError:  # whoever needs the image will tell
            found = channels
        if found != channels:
            raise InputError(
                f"the images have {found} channels, and data.channels is {channels}"
                f" ({shards.name(0)})",
                f"Say --set data.channels={found}, with data.mean and data.std of each channel.",
            )
    if channels == 3:
        return
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
