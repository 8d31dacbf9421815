"""The views of a run: their sizes, who makes them, and whether images have the colours for it."""

from __future__ import annotations

import numpy as np
import torch

from simsiam_zoo.data.batches import stated_sizes, view_sizes
from simsiam_zoo.data.image import COLOUR, colour_of
from simsiam_zoo.data.resident import SHARE, expected_bytes, memory_of
from simsiam_zoo.data.shards import Dataset
from simsiam_zoo.errors import InputError
from simsiam_zoo.model.siamese import Siamese
from simsiam_zoo.recipe import Recipe

_LARGER_PACKED = 4  # shards that exceed the room for their images by this factor: not looked into
_TRIED = 256  # views; a thing that one in ten has is missed by chance in one of 10^11 cases


def view_sizes_of(recipe: Recipe, siamese: Siamese) -> tuple[int, ...]:
    """The side of each view of an image, in pixels."""
    augmentation = recipe.part("augmentation").create()
    called = f"augmentation {recipe.augmentation.name}", f"gradient {recipe.gradient.name}"
    return view_sizes(augmentation, recipe.data.image_size, siamese.gradient.views, *called)


def stated_sizes_of(recipe: Recipe) -> tuple[int, ...]:
    """Of all views in the course of the run, where an augmentation states them."""
    used = (stage.recipe.part("augmentation") for stage in recipe.stages())
    stated = (stated_sizes(each.create(), recipe.data.image_size) or () for each in used)
    return tuple(sorted({size for sizes in stated for size in sizes}))


def choose_views(recipe: Recipe, device: torch.device, dataset: Dataset) -> str:
    """Who makes views: what the recipe says (InputError: it cannot be done), or `auto` means here.

    On a CPU the worker. On CUDA the device, if the images fit in its memory beside the network;
    else worker and device in turn. The worker too where an augmentation applies views itself.
    """
    wanted, stream = recipe.data.views, recipe.data.stream
    used = (stage.recipe.part("augmentation") for stage in recipe.stages())
    why = "a stream is read by workers" if stream else ""
    if any(hasattr(each.create(), "apply") for each in used):
        why = "its augmentation applies views itself"
    if recipe.data.channels != 3:
        why = "workers make the views of other channels than three"
    if wanted == "worker" or (wanted == "auto" and (device.type != "cuda" or why)):
        return "worker"
    if why:
        raise InputError(f"data.views = {wanted!r}: {why}", "Say data.views = 'worker'.")
    remote = dataset.train.cache is not None
    if wanted == "split" or (wanted == "auto" and remote):  # sizes would have to be fetched first
        return "split"
    room = recipe.data.resident
    allowed = SHARE * memory_of(device) if room == "auto" else 1e9 * room
    needed = int(dataset.train.bytes.sum())
    if needed <= _LARGER_PACKED * allowed:
        needed = expected_bytes(dataset.train)
    if needed <= allowed:
        return "device"
    if wanted == "auto":
        return "split"
    raise InputError(
        f"data.views = 'device': the images take about {needed / 1e9:.3g} GB, and"
        f" {allowed / 1e9:.3g} GB of {device} are theirs",
        "Raise data.resident, or say data.views = 'split'.",
    )


def check_views(recipe: Recipe) -> None:
    """Stop where views of other channels than three would need a colour. Raises InputError."""
    if recipe.data.channels == 3:
        return
    for part in (stage.recipe.part("augmentation") for stage in recipe.stages()):
        augmentation, generator = part.create(), np.random.default_rng(0)
        where = f"data.channels = {recipe.data.channels}, and the augmentation {part.name}"
        another = "Choose another augmentation."
        if hasattr(augmentation, "apply"):
            raise InputError(f"{where} applies its views itself, to RGB", another)
        drawn: set[str] = set()
        for number in range(_TRIED):
            drawn |= {*colour_of(augmentation.sample(generator, number % 2, (32, 32)))}
        if drawn:
            named = [p.name for p in part.entry.component.params if p.name.startswith(tuple(drawn))]
            off = " ".join(f"--set augmentation.{name}=0" for name in named)
            raise InputError(
                f"{where} changes {', '.join(name for name in COLOUR if name in drawn)}: only three"
                " channels have a colour",
                f"Say {off}." if off else another,
            )
