"""What differs between a lock and a run, and `--locked`: a run that must be what its lock says.

Held against the lock are the keys of the recipe that decide what is computed, each component with
its parameters, version and source, the data, and the software. The machine may be another one, and
so may a patch release of Python or the build of a package (torch's +cpu and +cu130): those warn.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from simsiam_zoo.catalog import catalog
from simsiam_zoo.catalog.local import use_recorded
from simsiam_zoo.errors import InputError, PluginError
from simsiam_zoo.recipe.layers import read_toml
from simsiam_zoo.recipe.lock import (
    FORMAT,
    make_lock,
    recorded_components,
)
from simsiam_zoo.recipe.recipe import Recipe
from simsiam_zoo.recipe.source import NOT_INSTALLED, installed_version

_NAMED = 3  # differences that a message names; the first ones tell enough


class Difference(NamedTuple):
    """A place where two trees of plain values differ, and what is there; None: nothing."""

    path: str
    there: Any
    here: Any

    def __str__(self) -> str:
        return f"{self.path}: {_shown(self.there)} there, {_shown(self.here)} here"


def differences(there: Any, here: Any, path: str = "") -> Iterator[Difference]:
    """Where two trees differ, leaf by leaf; lists are gone into where they hold tables."""
    if isinstance(there, dict) and isinstance(here, dict):
        pairs: Iterable[tuple[Any, Any, Any]] = (
            (key, there.get(key), here.get(key)) for key in sorted(there.keys() | here.keys())
        )
    elif _are_tables(there) and _are_tables(here) and len(there) == len(here):
        pairs = zip(range(len(there)), there, here, strict=True)
    else:
        if there != here:
            yield Difference(path, there, here)
        return
    for key, old, new in pairs:
        yield from differences(old, new, f"{path}.{key}" if path else str(key))


def identity_differences(there: dict[str, Any], here: dict[str, Any]) -> list[Difference]:
    """What makes two locks those of different runs, in the words of a recipe's keys."""
    return [
        *differences(there.get("recipe", {}), here["recipe"]),
        *differences(there.get("parts", {}), here["parts"]),
        *differences(there.get("protocols", []), here["protocols"], "evaluation.protocols"),
        *differences(there.get("code", {}), here["code"], "code"),
        *differences(there.get("data", {}), here["data"], "data"),
    ]


def smaller_differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """A line on the software and one on the machine, where they differ."""
    found = [
        list(differences(there.get(table, {}), here[table], table))
        for table in ("software", "machine")
    ]
    return [_listed(some) for some in found if some]


def read_locked(path: Path) -> dict[str, Any]:
    """The lock in a file that a user named.

    Raises:
        InputError: there is none, or it is none that this version writes.
    """
    way_out = "Name the lock.toml in a run's folder."
    tree = read_toml(path, "the lock", way_out)
    try:
        _Lock.model_validate(tree)
    except ValidationError as error:
        where = ".".join(str(step) for step in error.errors()[0]["loc"])
        raise InputError(
            f"{path} is no lock of a run: {where} is not as it is there", way_out
        ) from None
    if tree["format"] != FORMAT:
        raise InputError(
            f"the lock {path} is of format {tree['format']}, and this version knows {FORMAT}",
            f"python -m pip install 'simsiam-zoo=={tree['software'].get('simsiam-zoo')}'",
        )
    return tree


def refuse_other_software(lock: dict[str, Any]) -> None:
    """Stop where other versions are installed than a lock names; needs no recipe.

    Raises:
        PluginError: a component's supplier is missing, of another version or cannot be used.
        InputError: another package differs, or Python.
    """
    use_recorded(lock.get("plugins", []))
    suppliers = list(_other_suppliers(lock))
    named = {other.path for other in suppliers}
    packages = [other for other in _other_packages(lock) if other.path not in named]
    if found := suppliers + packages:
        raise (PluginError if suppliers else InputError)(
            f"other software is here than the lock names: {_listed(found)}", _mending(found)
        )


def refuse_other_recipe(lock: dict[str, Any], recipe: Recipe) -> None:
    """Stop where a recipe is not that of a lock; what `auto` means and the data are yet unknown.

    Raises:
        InputError: it computes something else; the first differences are named.
        PluginError: all is the same but the source of a component, installed editable.
    """
    precision = lock["recipe"].get("training", {}).get("precision")
    chosen = {"precision": precision} if recipe.training.precision == "auto" else {}
    _refuse(identity_differences(lock, make_lock(recipe, lock["data"]["digest"], chosen)))


def refuse_other_run(lock: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Stop where a run, its data open and its device chosen, is not that of a lock.

    Args:
        lock: what the run must be.
        here: its own lock.

    Returns:
        Lines on what may differ, and does.

    Raises:
        InputError, PluginError: as `refuse_other_software` and `refuse_other_recipe` do.
    """
    refuse_other_software(lock)
    _refuse(identity_differences(lock, here))
    return smaller_differences(lock, here)


def _refuse(found: list[Difference]) -> None:
    if not found:
        return
    if all(difference.path.startswith("code.") for difference in found):
        raise PluginError(
            f"other code is here than the lock names: {_listed(found)}",
            "It is installed editable: check out what the lock was made with.",
        )
    raise InputError(
        f"this is not the run of the lock: {_listed(found)}",
        "Take the recipe and the data that the lock was made with (--recipe RUN/recipe.toml).",
    )


def _other_suppliers(lock: dict[str, Any]) -> Iterator[Difference]:
    """Distributions that supply a component of the lock and are not here as it says."""
    plugins = catalog().plugins
    wanted = {(part["distribution"], part["version"]) for _, part in recorded_components(lock)}
    for distribution, version in sorted(wanted):
        offered = [plugin for plugin in plugins if plugin.distribution == distribution]
        usable = [plugin for plugin in offered if plugin.status == "ok"]
        if any(plugin.version == version for plugin in usable):
            continue
        found = next(iter(usable or offered), None)
        here = NOT_INSTALLED if found is None else found.version
        if found is not None and found.status != "ok":
            here += f" ({found.status}: {found.cause})"
        yield Difference(distribution, version, here)


def _other_packages(lock: dict[str, Any]) -> Iterator[Difference]:
    """Python and the packages that every run uses, where they are not as the lock says."""
    for name, there in lock["software"].items():
        if name == "python":
            there, here = _minor(there), _minor(platform.python_version())
        else:
            here = installed_version(name)
        # What was not installed there took no part; a build (+cpu) is the machine's affair.
        if there != NOT_INSTALLED and _public(there) != _public(here):
            yield Difference(name, there, here)


def _mending(found: list[Difference]) -> str | None:
    """The command that brings back what a lock names; None where none does."""
    wanted = {
        name: _public(there)
        for name, there, here in found
        if here.partition(" ")[0] != there  # else it is there, and cannot be used
    }
    python = wanted.pop("python", None)
    pip = " ".join(f"'{name}=={version}'" for name, version in wanted.items())
    words = [f"Use Python {python}."] if python else []
    return " ".join([*words, f"python -m pip install {pip}"] if pip else words) or None


def _listed(found: list[Difference]) -> str:
    first = "; ".join(str(difference) for difference in found[:_NAMED])
    return f"{first}; and {len(found) - _NAMED} more" if len(found) > _NAMED else first


def _are_tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _public(version: str) -> str:
    return version.partition("+")[0]


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value)


class _Component(BaseModel):
    id: str
    distribution: str
    version: str


class _Data(BaseModel):
    digest: str


class _Lock(BaseModel):
    format: int
    recipe: dict[str, dict[str, Any]]
    parts: dict[str, _Component]
    protocols: list[_Component]
    code: dict[str, str]
    data: _Data
    software: dict[str, str]
    machine: dict[str, Any]
