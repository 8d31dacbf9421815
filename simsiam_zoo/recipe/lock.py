"""The lock: which distribution and version supplied each part, and a run's identity.

    identity = hash(recipe keys that are not operational, in one spelling,
                    id, version, parameters, editable source of each component and protocol,
                    data digest)

Two runs of one identity compute the same thing. The machine, torch and timm are in the lock too,
but not in the identity: another version of them is worth a warning, not a refusal (unless the run
is held to the lock: `locked.py`).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simsiam_zoo.catalog import Resolved, catalog
from simsiam_zoo.catalog.component import Param
from simsiam_zoo.catalog.local import local_file, local_files, use_recorded
from simsiam_zoo.errors import DataError, InputError, PluginError
from simsiam_zoo.recipe.layers import COMPONENTS
from simsiam_zoo.recipe.recipe import Recipe

FORMAT = 2
NOT_INSTALLED = "not installed"
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
    lock = {
        "format": FORMAT,
        "recipe": keys,
        "parts": {kind: lock_part(recipe.part(kind)) for kind in COMPONENTS},
        "protocols": [lock_part(protocol) for protocol in recipe.protocols()],
        "data": {"digest": data_digest},
        "software": {
            "python": platform.python_version(),
            **{name: installed_version(name) for name in ("simsiam-zoo", *_PACKAGES)},
        },
        "machine": {"platform": platform.platform(), **machine},
    }
    if files := local_files():  # where they are; what they are is in the parts
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
    entry = {
        "id": part.id,
        "distribution": part.entry.distribution,
        "version": part.entry.version,
        "params": params,
    }
    if file := local_file(part.entry.distribution):
        entry["source"] = file.source
    elif digest := source_digest(part.entry.distribution, part.entry.component.target):
        entry["source"] = digest
    return entry


def identity(lock: dict[str, Any]) -> str:
    """A hash (16 hex digits) of everything that decides what the run computes."""
    facts = {name: lock[name] for name in ("recipe", "parts", "protocols", "data")}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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


def installed_version(distribution: str) -> str:
    """The version that is installed, or `NOT_INSTALLED`."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return NOT_INSTALLED


def source_digest(distribution: str, target: str) -> str | None:
    """A hash of the source beside `target`, if its distribution is an editable install.

    An editable install can change under one version number; a wheel cannot.
    """
    if not _is_editable(distribution):
        return None
    module = target.partition(":")[0]
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    in_package = "." in module or spec.submodule_search_locations is not None
    files = sorted(origin.parent.rglob("*.py")) if in_package else [origin]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(origin.parent)}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _is_editable(distribution: str) -> bool:
    try:
        text = importlib.metadata.distribution(distribution).read_text("direct_url.json")
        return bool(json.loads(text or "{}").get("dir_info", {}).get("editable"))
    except (importlib.metadata.PackageNotFoundError, json.JSONDecodeError, AttributeError):
        return False


def _params(part: Resolved) -> tuple[Param, ...]:
    return part.entry.component.params
