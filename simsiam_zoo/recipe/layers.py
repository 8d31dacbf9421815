"""Preset < file < settings: how the layers of a recipe become one tree of plain values.

The one rule that is not plain merging: a layer that states a component's name drops the parameters
that lower layers gave that component, for they were meant for another one. So does a layer that
states the optimiser's name with the keys that only some optimisers have.
"""

from __future__ import annotations

import copy
import importlib.resources
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simsiam_zoo.catalog import PARTS, Catalog, split_spec
from simsiam_zoo.errors import InputError, PluginError

COMPONENTS = (*PARTS, "augmentation", "dataset")
"""The keys of a recipe that hold a component."""

OPTIMIZERS: Mapping[str, Mapping[str, Any]] = {
    "sgd": {"momentum": 0.9},
    "lars": {"momentum": 0.9, "trust_coefficient": 0.001, "lr_in_momentum": True},
    "adamw": {"betas": (0.9, 0.999)},
}
"""The optimisers, each with the keys of `optim` that not all have, and their defaults."""

OPTIMIZER_KEYS = frozenset(key for own in OPTIMIZERS.values() for key in own)

Tree = dict[str, Any]


class Text(str):
    """A value as typed on a command line: its type is found where it is used."""

    __slots__ = ()


def literals(value: Any) -> Any:
    """`value` with every `Text` in it read as TOML would read it; a bare word is a string."""
    if isinstance(value, dict):
        return {key: literals(below) for key, below in value.items()}
    if not isinstance(value, Text):
        return value
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        pass
    try:
        return float(value)  # `.5` is no TOML, and plain to everybody
    except ValueError:
        return str(value)


def read_layers(
    known: Catalog,
    preset: str | None,
    file: Path | str | None,
    settings: Mapping[str, object],
    default_preset: str,
) -> Tree:
    """The merged tree; its `preset` names the preset at the bottom. Raises InputError."""
    file_tree = read_file(Path(file)) if file is not None else {}
    top = _nest(settings)
    if "preset" in top and preset is not None:
        raise InputError("preset is set twice")
    base = top.get("preset", preset)
    if base is None:
        base = file_tree.get("preset", default_preset)
    if not isinstance(base, str):
        raise InputError(f"preset is a name, not {base!r}")
    tree = read_preset(known, base)
    tree = merge(tree, _normal(file_tree, str(file)))
    tree = merge(tree, _normal(top, "the settings"))
    tree["preset"] = str(base)
    return tree


def read_complete(file: Path, settings: Mapping[str, object]) -> Tree:
    """The tree of a recipe that a run left behind: no preset below it is needed any more."""
    tree = read_file(file)
    merged = merge(_normal(tree, str(file)), _normal(_nest(settings), "the settings"))
    return {"preset": tree.get("preset", ""), **merged}


def read_preset(known: Catalog, name: str, below: tuple[str, ...] = ()) -> Tree:
    """A preset's tree, laid on the one that it `extends`. Raises InputError, PluginError."""
    resolved = known.resolve("preset", name)
    if resolved.id in below:
        raise PluginError(f"preset {name} extends itself, through {' -> '.join(below)}")
    package, _, filename = resolved.entry.component.target.partition(":")
    try:
        text = importlib.resources.files(package).joinpath(filename).read_text("utf-8")
        tree = tomllib.loads(text)
    except (OSError, ImportError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PluginError(f"preset {name} ({package}:{filename}) cannot be read: {error}") from None
    parent = tree.pop("extends", None)
    tree = _normal(tree, f"preset {name}")
    if parent is None:
        return tree
    return merge(read_preset(known, str(parent), (*below, resolved.id)), tree)


def read_file(path: Path) -> Tree:
    """A TOML file as a tree. Raises InputError where there is none or it is not TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"the recipe {path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"the recipe {path} is not TOML: {error}") from None


def merge(lower: Tree, upper: Tree) -> Tree:
    """`upper` laid on `lower`; neither is changed."""
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            if "name" in value:
                below = _meant_for_any(key, below)
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def _meant_for_any(key: str, table: Tree) -> Tree:
    """What is left of a table once another name is put into it."""
    if key in COMPONENTS:
        return {}
    if key == "optim":
        return {name: value for name, value in table.items() if name not in OPTIMIZER_KEYS}
    return table


def dataset_spec(text: str) -> Tree | str:
    """What `--data` and `dataset = "..."` mean: a path or URL of shards, or a dataset's spec."""
    looks_like_path = text[:1] in {".", "/", "~"} or any(s in text for s in ("://", "{", ".tar"))
    return {"name": "shards", "path": text} if looks_like_path else text


def _nest(settings: Mapping[str, object]) -> Tree:
    """`{"a.b": 1}` as `{"a": {"b": 1}}`; a component's spec and its parameters go together."""
    tree: Tree = {}
    settings = copy.deepcopy(dict(settings))  # tables are filled in place below
    for path in sorted(settings, key=lambda path: path.count(".")):
        *folders, last = path.split(".")
        place = tree
        for folder in folders:
            if folder in COMPONENTS and isinstance(place.get(folder), str):
                place[folder] = _component_table(folder, place[folder])
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                raise InputError(f"{path}: {folder} holds a value, not keys")
        place[last] = settings[path]
    return tree


def _normal(tree: Tree, where: str) -> Tree:
    """Component specs as tables, the rest as it is."""
    normal = {key: value for key, value in tree.items() if key != "preset"}
    for key in COMPONENTS:
        value = normal.get(key)
        if isinstance(value, str):
            normal[key] = _component_table(key, value)
        elif value is not None and not isinstance(value, dict):
            raise InputError(f"{where}: {key} is a name or a table, not {value!r}")
        elif isinstance(value, dict) and isinstance(value.get("name"), str):
            # A table's own name may be a spec as well; its keys win over the spec's.
            normal[key] = {**_component_table(key, value["name"]), **value}
            normal[key]["name"] = _component_table(key, value["name"])["name"]
    return normal


def _component_table(kind: str, spec: str) -> Tree:
    meaning = dataset_spec(spec) if kind == "dataset" else spec
    if isinstance(meaning, dict):
        return meaning
    name, params = split_spec(str(meaning))
    return {"name": name, **{key: Text(value) for key, value in params.items()}}
