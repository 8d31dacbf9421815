"""The lock: which distribution and version supplied each part, and a run's identity.

    identity = hash(recipe keys that are not operational, in one spelling,
                    id, version and parameters of each component and protocol,
                    source of what computes, where it is installed editable (`source.py`),
                    data digest)

Two runs of one identity compute the same thing, up to rounding. The device and the number of
threads change the order of sums, and torch and timm may: they are in the lock, not in the identity,
and another one is worth a warning, not a refusal (unless the run is held to the lock:
`locked.py`).
"""

from __future__ import annotations

import hashlib
import json
import platform
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simsiam_zoo.catalog import Param, Resolved, catalog
from simsiam_zoo.catalog.local import local_files, use_recorded
from simsiam_zoo.errors import DataError, InputError, PluginError
from simsiam_zoo.recipe.layers import COMPONENTS
from simsiam_zoo.recipe.recipe import Recipe
from simsiam_zoo.recipe.source import code_of, installed_version

FORMAT = 3
_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pillow",
    "opencv-python-headless",
    "scikit-learn",
    "webdataset",
)


def make_lock(recipe: Recipe, data_digest: str, machine: dict[str, Any]) -> dict[str, Any]:
    """What a run is made of, as plain values for `lock.toml`.

    Args:
        recipe: the run's recipe.
        data_digest: of the training and the test shards.
        machine: what the runtime chose (device, precision, threads).
    """
    keys = recipe.identity_dict()
    if "precision" in machine:  # what `auto` means here decides what is computed
        keys["training"]["precision"] = machine["precision"]
    parts = {kind: recipe.part(kind) for kind in COMPONENTS}
    protocols = recipe.protocols()
    lock = {
        "format": FORMAT,
        "recipe": keys,
        "parts": {kind: lock_part(part) for kind, part in parts.items()},
        "protocols": [lock_part(protocol) for protocol in protocols],
        "code": code_of([*parts.values(), *protocols]),
        "data": {"digest": data_digest},
        "software": {
            "python": platform.python_version(),
            **{name: installed_version(name) for name in ("simsiam-zoo", *_PACKAGES)},
        },
        "machine": {"platform": platform.platform(), **machine},
    }
    if files := local_files():  # where they are; what they are is in the code
        lock["plugins"] = [file.record() for file in files]
    return lock


def lock_part(part: Resolved) -> dict[str, Any]:
    """One component's entry: what it is called, who supplied it, and with which parameters."""
    operational = {param.name for param in _params(part) if param.operational}
    params = {
        key: value
        for key, value in part.params.items()
        if value is not None and key not in operational
    }
    return {
        "id": part.id,
        "distribution": part.entry.distribution,
        "version": part.entry.version,
        "params": params,
    }


def identity(lock: dict[str, Any]) -> str:
    """A hash (16 hex digits) of everything that decides what the run computes."""
    facts = {name: lock[name] for name in ("recipe", "parts", "protocols", "code", "data")}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def keep_threads(recipe: Recipe, lock: dict[str, Any]) -> Recipe:
    """The recipe with as many CPU threads as a run began with, unless it states a number.

    Other threads add in another order; so a resume takes those that `0` meant at the start.

    Args:
        recipe: of the run to go on with.
        lock: the run's.
    """
    threads = lock.get("machine", {}).get("threads")
    if recipe.training.threads or not isinstance(threads, int) or threads < 1:
        return recipe
    training = recipe.training.model_copy(update={"threads": threads})
    return recipe.model_copy(update={"training": training})


def read_lock(folder: Path) -> dict[str, Any]:
    """The lock of the run in `folder`, its `identity` among it.

    Raises:
        InputError: there is no run.
        DataError: its files are damaged.
    """
    if not (folder / "recipe.toml").is_file():
        raise InputError(f"there is no run in {folder}", "A run's folder holds a recipe.toml.")
    try:
        return tomllib.loads((folder / "lock.toml").read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{folder / 'lock.toml'} cannot be read: {error}") from None


def refuse_missing(lock: dict[str, Any]) -> None:
    """Stop where a part of a recorded run comes from a plugin that is not here.

    Local files that were plugins of the run are used again, where they are what they were.

    Args:
        lock: what `lock.toml` holds.

    Raises:
        PluginError: the plugin is not installed, or cannot be used; the way to get it is named.
        DataError: the lock is damaged.
    """
    use_recorded(lock.get("plugins", []))
    plugins = catalog().plugins
    usable = {plugin.distribution for plugin in plugins if plugin.status == "ok"}
    for kind, part in recorded_components(lock):
        distribution, version = part.get("distribution"), part.get("version")
        if distribution in usable:
            continue
        here = [plugin for plugin in plugins if plugin.distribution == distribution]
        why = f"{here[0].supplier} is {here[0].status}: {here[0].cause}" if here else None
        raise PluginError(
            f"the run's {kind} is {part.get('id')}, and {why or f'{distribution} is not here'}",
            None
            if here and here[0].status == "disabled"  # the cause says where to enable it
            else f"python -m pip install {distribution}=={version}",
        )


def recorded_components(lock: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each component of a lock with its kind: the parts, then the protocols."""
    yield from lock.get("parts", {}).items()
    yield from (("protocol", protocol) for protocol in lock.get("protocols", []))


def _params(part: Resolved) -> tuple[Param, ...]:
    return part.entry.component.params
