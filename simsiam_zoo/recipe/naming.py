"""What a run's folder is called, and the preset of data for which none was named."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from functools import reduce
from typing import Any

from simsiam_zoo.catalog import PARTS, catalog
from simsiam_zoo.data.packing.archives import ENDINGS
from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe.layers import merge, normal, read_preset

OWN_IMAGES = "photos"
"""The preset of images that no preset is made for."""

_LONGEST = 120  # characters: a file system takes 255 bytes, and a report adds to the name


def preset_for(settings: Mapping[str, object], default: str) -> str:
    """The preset of a run for which none is named: the `default`, unless other data is stated.

    For a data set that comes by name it is the preset of that name, where there is one.
    """
    stated = {path: v for path, v in settings.items() if path.split(".")[0] == "dataset"}
    if not stated:
        return default
    try:
        dataset = normal(stated)["dataset"]
        name = catalog().resolve("dataset", str(dataset.get("name", "shards"))).name
        if dataset.keys() <= {"name"} and name == _dataset_of(default):
            return default
        return name if name == _dataset_of(name) else OWN_IMAGES
    except InputError:  # of such a preset there is none; of a data set, the recipe says it better
        return OWN_IMAGES


def _dataset_of(preset: str) -> Any:
    """The name of a preset's own data. Raises InputError where there is no such preset."""
    tree = reduce(merge, (layer.tree for layer in read_preset(catalog(), preset)))
    return tree.get("dataset", {}).get("name")


def run_name(recipe: Any, plain: Any) -> str:
    """The name of a recipe's run; `plain` is the recipe's preset alone."""
    words = [recipe.preset, data_word(recipe, plain)]
    words += [f"{kind}-{getattr(recipe, kind).name}" for kind in other_parts(recipe, plain)]
    words += [f"change{change.epoch}" for change in recipe.change]
    words.append(f"seed{recipe.training.seed}")
    name = re.sub(r"[^\w.+-]", "-", "-".join(filter(None, words)))
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def other_parts(recipe: Any, plain: Any) -> list[str]:
    """The kinds of which a recipe has another component than `plain`."""
    return [
        kind
        for kind in (*PARTS, "augmentation")
        if getattr(recipe, kind).name != getattr(plain, kind).name
    ]


def run_summary(recipe: Any, plain: Any) -> str:
    """`preset digits, predictor none, data digits, seed 0`; `plain`: the preset alone."""
    words = [f"preset {recipe.preset}"]
    words += [f"{kind} {getattr(recipe, kind).name}" for kind in other_parts(recipe, plain)]
    data = data_name(recipe.dataset.name, recipe.dataset.params.get("path"))
    return ", ".join([*words, f"data {data}", f"seed {recipe.training.seed}"])


def data_word(recipe: Any, plain: Any) -> str:
    """What to call the data of a recipe where it is not that of `plain`, else nothing."""
    if recipe.dataset == plain.dataset:
        return ""
    return data_name(recipe.dataset.name, recipe.dataset.params.get("path"))


def data_name(dataset: object, path: object) -> str:
    """What to call the data of a component `dataset`: by its path, or else by that name."""
    return _source_word(str(path or "")) or str(dataset)


def _source_word(path: str) -> str:
    """What a folder's name may have of the data at a path or URL: the last folder, or the archive.

    A pattern's folder names what it matches.
    """
    plain = path.rstrip("/")
    if "://" not in plain and plain and set(plain) <= {".", "/"}:
        plain = os.path.abspath(plain)
    *folders, last = plain.split("/")
    if folders and (set(last) & set("{*?[") or last.endswith(".tar")):
        last = folders[-1]
    for ending in ENDINGS:
        last = last.removesuffix(ending)
    return re.sub(r"[^\w.+-]+", "-", last).strip("-.")
