"""The lock: which distribution and version supplied each part, and a run's identity.

    identity = hash(recipe keys that are not operational, in one spelling,
                    id, distribution and parameters of each component and protocol,
                    version of each distribution, or the source of what computes in it where it is
                    installed editable (`source.py`),
                    data digest)

Two runs of one identity compute the same thing, up to rounding. The device and the number of
threads change the order of sums, and torch and timm may: they are in the lock and not in the
identity, and another one is worth a warning. A run that is held to a lock (`--locked`) needs the
same software.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ValidationError

from simsiam_zoo.catalog import HOST, Resolved, catalog
from simsiam_zoo.catalog.local import local_files, use_recorded
from simsiam_zoo.errors import DataError, InputError, PluginError
from simsiam_zoo.recipe.layers import COMPONENTS, read_toml
from simsiam_zoo.recipe.recipe import Recipe
from simsiam_zoo.recipe.source import code_of, installed_version

_PACKAGES = [HOST, "torch", "torchvision", "timm", "numpy", "pillow"]
_PACKAGES += ["opencv-python-headless", "scikit-learn", "webdataset"]
_CHOSEN = (("training", "precision"), ("data", "views"))
"""Keys of the recipe whose `auto` is decided when a run starts, and decides what is computed."""

_NAMED = 3  # differences that a message names; the first ones tell enough


class _Shape(BaseModel):
    """What a lock holds at least."""

    format: Literal[3]
    recipe: dict[str, Any]
    parts: dict[str, dict[str, Any]]
    protocols: list[dict[str, Any]]
    code: dict[str, str]
    data: dict[str, str]
    software: dict[str, str]
    machine: dict[str, Any]


def make_lock(recipe: Recipe, data_digest: str, machine: dict[str, Any]) -> dict[str, Any]:
    """What a run is made of, for `lock.toml`; `machine`: what was chosen (device, precision)."""
    keys = recipe.identity_dict()
    for section, key in _CHOSEN:
        if key in machine:
            keys[section][key] = machine[key]
    parts = {kind: recipe.part(kind) for kind in COMPONENTS}
    for stage in recipe.stages()[1:]:
        stated = () if stage.change is None else stage.change.components
        parts |= {f"{k} from epoch {stage.begin}": stage.recipe.part(k) for k in stated}
    protocols = recipe.protocols()
    packages = {name: installed_version(name) for name in _PACKAGES}
    lock = {
        "format": 3,
        "recipe": keys,
        "parts": {kind: lock_part(part) for kind, part in parts.items()},
        "protocols": [lock_part(protocol) for protocol in protocols],
        "code": code_of([*parts.values(), *protocols]),
        "data": {"digest": data_digest},
        "software": {"python": platform.python_version(), **packages},
        "machine": {"platform": platform.platform(), **machine},
    }
    if files := local_files():  # where they are; what they are is in the code
        lock["plugins"] = [{"file": str(each.path), "digest": each.digest} for each in files]
    return lock


def lock_part(part: Resolved) -> dict[str, Any]:
    """One component's entry: what it is called, who supplied it, and with which parameters."""
    entry = part.entry
    operational = {param.name for param in entry.component.params if param.operational}
    given = {k: v for k, v in part.params.items() if v is not None and k not in operational}
    who = {"distribution": entry.distribution, "version": entry.version}
    return {"id": part.id, **who, "params": given}


def identity(lock: dict[str, Any]) -> str:
    """A hash (16 hex digits) of everything that decides what the run computes.

    The version of a part counts by the lock's `code`, which has the source in its place where a
    version does not stand for it: a new version alone changes no run of an editable install.
    """
    facts = {name: lock[name] for name in ("recipe", "code", "data")}
    facts["parts"] = {kind: _unversioned(part) for kind, part in lock["parts"].items()}
    facts["protocols"] = [_unversioned(protocol) for protocol in lock["protocols"]]
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _unversioned(part: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "version"}


def keep_choices(recipe: Recipe, lock: dict[str, Any]) -> Recipe:
    """The recipe with what the run of `lock` chose at its start where it stated nothing.

    Other threads add in another order, and views of the device have other last bits.
    """
    threads = lock.get("machine", {}).get("threads")
    if not recipe.training.threads and isinstance(threads, int) and threads > 0:
        training = recipe.training.model_copy(update={"threads": threads})
        recipe = recipe.model_copy(update={"training": training})
    views = lock.get("recipe", {}).get("data", {}).get("views")
    if recipe.data.views == "auto" and views in ("worker", "split", "device"):
        data = recipe.data.model_copy(update={"views": views})
        recipe = recipe.model_copy(update={"data": data})
    return recipe


def read_lock(folder: Path) -> dict[str, Any]:
    """The lock of the run in `folder`, its `identity` among it.

    Raises InputError where there is no run, DataError where its files are damaged.
    """
    if not (folder / "recipe.toml").is_file():
        hint = "A run's folder holds a recipe.toml. `simsiam-zoo runs` lists the runs."
        if (below := Path("runs") / folder / "recipe.toml").is_file():
            hint = f"There is one in {shlex.quote(str(below.parent))}."
        if (folder / "study.json").is_file():
            way = f"simsiam-zoo report {shlex.quote(str(folder))}"
            hint = f"It is a study's, and has its runs below it: {way}"
        raise InputError(f"there is no run in {folder}", hint)
    try:
        return tomllib.loads((folder / "lock.toml").read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{folder / 'lock.toml'} cannot be read: {error}") from None


def train_command(recipe: Path, flags: str) -> str:
    """The command that trains by a recipe's file, with the local plugins of its run."""
    files: list[str] = []
    with suppress(InputError, DataError):  # it is no run's
        files = [str(each["file"]) for each in read_lock(recipe.parent).get("plugins", ())]
    plugins = "".join(f" --plugin {shlex.quote(file)}" for file in files)
    return f"simsiam-zoo train --recipe {shlex.quote(str(recipe))}{plugins} {flags}"


def read_locked(path: Path) -> dict[str, Any]:
    """The lock in a file that a user named. Raises InputError where this version writes none so."""
    way_out = "Name the lock.toml in a run's folder."
    lock = read_toml(path, "the lock", way_out)
    try:
        _Shape.model_validate(lock, strict=True)
    except ValidationError:
        raise InputError(f"{path} is no lock of a run that this version knows", way_out) from None
    return lock


def refuse_missing(lock: dict[str, Any]) -> None:
    """Stop where a part of a recorded run comes from a plugin that is not here.

    Local files that were plugins of the run are used again, as they were.

    Raises:
        PluginError: the plugin is not installed, or cannot be used; the way to get it is named.
        DataError: the lock is damaged.
    """
    use_recorded(lock.get("plugins", []))
    plugins = catalog().plugins
    usable = {plugin.distribution for plugin in plugins if plugin.status == "ok"}
    protocols = [("protocol", protocol) for protocol in lock.get("protocols", [])]
    for kind, part in [*lock.get("parts", {}).items(), *protocols]:
        distribution, version = part.get("distribution"), part.get("version")
        if distribution in usable:
            continue
        why = f"{distribution} is not here"
        hint: str | None = f"python -m pip install {distribution}=={version}"
        for plugin in plugins:
            if plugin.distribution == distribution:
                why = f"{plugin.supplier} is {plugin.status}: {plugin.cause}"
                hint = None if plugin.status == "disabled" else hint
                if (plugin.status, plugin.version) == ("broken", version):  # pip has it already
                    hint = f"python -m pip install --force-reinstall --no-deps {distribution}"
        raise PluginError(f"the run's {kind} is {part.get('id')}, and {why}", hint)


class KeyDifference(NamedTuple):
    """A place where two trees of plain values differ, and what is there; None: nothing."""

    path: str
    there: Any
    here: Any

    def __str__(self) -> str:
        values = (self.there, self.here)
        there, here = ("nothing" if value is None else json.dumps(value) for value in values)
        return f"{self.path}: {there} there, {here} here"


def differences(there: Any, here: Any, path: str = "") -> Iterator[KeyDifference]:
    """Where two trees differ, leaf by leaf; lists are gone into where they hold tables."""
    if isinstance(there, dict) and isinstance(here, dict):
        pairs: Iterable[tuple[Any, Any, Any]] = (
            (key, there.get(key), here.get(key)) for key in sorted(there.keys() | here.keys())
        )
    elif _are_tables(there) and _are_tables(here) and len(there) == len(here):
        pairs = zip(range(len(there)), there, here, strict=True)
    else:
        if there != here:
            yield KeyDifference(path, there, here)
        return
    for key, old, new in pairs:
        yield from differences(old, new, f"{path}.{key}" if path else str(key))


def identity_differences(there: dict[str, Any], here: dict[str, Any]) -> list[KeyDifference]:
    """What makes two locks those of different runs, in the words of a recipe's keys."""
    tables = [("recipe", ""), ("parts", ""), ("protocols", "evaluation.protocols")]
    tables += ("code", "code"), ("data", "data")
    found = (differences(there.get(table, {}), here[table], path) for table, path in tables)
    return [*chain.from_iterable(found)]


def pip_install(found: Iterable[KeyDifference]) -> str:
    """What brings back other versions of the software and of the parts' distributions; or nothing.

    ` python -m pip install 'NAME==VERSION' ...`, to stand behind a sentence.
    """
    versions: dict[str, str] = {}
    for each in found:
        table, _, name = each.path.partition(".")
        there = str(each.there or "")
        if table == "software" or (table == "code" and there.startswith("version ")):
            versions[name] = there.removeprefix("version ")
    pins = [f" '{name}=={v}'" for name, v in versions.items() if v and name != "python"]
    return f" python -m pip install{''.join(pins)}" if pins else ""


def smaller_differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """A line on the software and one on the machine, where they differ."""
    tables = ("software", "machine")
    found = [[*differences(there.get(table, {}), here[table], table)] for table in tables]
    return [_listed(some) for some in found if some]


def refuse_other_recipe(lock: dict[str, Any], recipe: Recipe) -> None:
    """`refuse_other_run` while what `auto` means and the data are not known yet."""
    stated = recipe.model_dump()
    chosen = {
        key: lock["recipe"].get(section, {}).get(key)
        for section, key in _CHOSEN
        if stated[section][key] == "auto"
    }
    refuse_other_run(lock, make_lock(recipe, str(lock["data"].get("digest")), chosen))


def refuse_other_run(lock: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Stop where a run, by its lock `here`, is not that of the lock to which it is held.

    Gives a line on the machine, where it is another. Raises InputError where the run computes
    something else, or other software is here.
    """
    software = list(differences(lock["software"], here["software"], "software"))
    found = [*identity_differences(lock, here), *software]
    if not found:
        return smaller_differences(lock, here)
    hint = "Take the source, the recipe and the data that the lock was made with."
    hint += pip_install(found)
    raise InputError(f"this is not the run of the lock: {_listed(found)}", hint)


def _listed(found: list[KeyDifference]) -> str:
    first = "; ".join(str(difference) for difference in found[:_NAMED])
    return f"{first}; and {len(found) - _NAMED} more" if len(found) > _NAMED else first


def _are_tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)
