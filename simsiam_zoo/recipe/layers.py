"""Preset < file < settings: how the layers of a recipe become one tree of plain values.

The one rule that is not plain merging: a layer that states a component's name drops the parameters
that lower layers gave that component, for they were meant for another one. So does a layer that
states the optimiser's name with the keys that only some optimisers have.
"""

from __future__ import annotations

import copy
import importlib.resources
import tomllib
from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from simsiam_zoo.catalog import PARTS, Catalog, Resolved, Text, split_spec
from simsiam_zoo.data.remote.urls import is_remote, refuse_secrets
from simsiam_zoo.errors import InputError, PluginError, located

COMPONENTS = (*PARTS, "augmentation", "dataset")
"""The keys of a recipe that hold a component."""

TABLES = ("data", "training", "optim", "evaluation", "logging")
"""The keys of a recipe that hold tables of fixed keys (`sections.py`)."""

OPTIMIZERS: Mapping[str, Mapping[str, Any]] = {
    "sgd": {"momentum": 0.9},
    "lars": {"momentum": 0.9, "trust_coefficient": 0.001, "lr_in_momentum": True},
    "adamw": {"betas": (0.9, 0.999)},
}
"""The optimisers, each with the keys of `optim` that not all have, and their defaults."""

OPTIMIZER_KEYS = frozenset(key for own in OPTIMIZERS.values() for key in own)

Tree = dict[str, Any]


class Layer(NamedTuple):
    """What a preset, a file or settings state, components as tables.

    `where` is how errors name it; empty for settings, which were just typed.
    """

    where: str
    tree: Tree


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
    settings: Sequence[Mapping[str, object]],
    default_preset: str,
) -> list[Layer]:
    """A recipe's layers, the lowest first; the last one names the preset. Raises InputError."""
    file_tree = read_toml(Path(file), "the recipe") if file is not None else {}
    above = [
        Layer(f"{file}", normal(file_tree, str(file))),
        *(Layer("", normal(each)) for each in settings),
    ]
    stated = [each["preset"] for each in settings if "preset" in each]
    if stated and preset is not None:
        raise InputError("preset is set twice")
    below = file_tree.get("preset", default_preset) if preset is None else preset
    base = str(stated[-1] if stated else below)
    return [*read_preset(known, base), *above, Layer("", {"preset": base})]


def read_complete(file: Path, settings: Mapping[str, object]) -> list[Layer]:
    """The layers of a recipe that a run left behind: no preset below it is needed any more."""
    tree = read_toml(file, "the recipe")
    return [
        Layer("", {"preset": tree.get("preset", "")}),
        Layer(str(file), normal(tree, str(file))),
        Layer("", normal(settings)),
    ]


def read_preset(known: Catalog, name: str, above: tuple[str, ...] = ()) -> list[Layer]:
    """A preset's layers: those that it `extends`, and its own. Raises InputError, PluginError."""
    resolved = known.resolve("preset", name)
    if resolved.id in above:
        raise PluginError(f"preset {name} extends itself, through {' -> '.join(above)}")
    tree = read_component_file(resolved)
    parent = tree.pop("extends", None)
    tree.pop("expected", None)  # of `expected.py`: it sets nothing
    below = [] if parent is None else read_preset(known, str(parent), (*above, resolved.id))
    return [*below, Layer(f"preset {name}", normal(tree, f"preset {name}"))]


def preset_content(known: Catalog, name: str) -> tuple[list[str], Tree]:
    """The presets that one extends, the lowest first, and what all of them together state."""
    layers = read_preset(known, name)
    empty: Tree = {}
    whole: Tree = literals(reduce(merge, (layer.tree for layer in layers), empty))
    return [layer.where.removeprefix("preset ") for layer in layers[:-1]], whole


def read_component_file(resolved: Resolved) -> Tree:
    """The TOML file inside a package that a preset or a study is. Raises PluginError."""
    package, _, filename = resolved.entry.component.target.partition(":")
    try:
        return _parse(importlib.resources.files(package).joinpath(filename).read_bytes())
    except Exception as error:  # to find the file, the package is imported
        what = f"{resolved.kind} {resolved.name} ({package}:{filename})"
        hint = f"Put the file into a package, a folder {package}." * isinstance(error, TypeError)
        raise PluginError(f"{what} cannot be read: {error}", hint or None) from None


def read_toml(path: Path, what: str, hint: str | None = None) -> Tree:
    """The TOML file that a user named. Raises InputError, with `what` (`the recipe`) and `hint`."""
    try:
        return _parse(path.read_bytes())
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error.strerror}", hint) from None
    except UnicodeDecodeError:
        raise InputError(f"{what} {path} is not UTF-8 text", "Save it as UTF-8.") from None
    except ValueError as error:  # of tomllib, and a path with a null byte
        raise InputError(f"{what} {path} is not TOML: {error}", hint) from None


def _parse(content: bytes) -> Tree:
    """TOML is UTF-8; editors put a mark before it that is no part of it. Raises ValueError."""
    return tomllib.loads(content.decode("utf-8-sig"))


def stated_in(layers: Sequence[Layer], path: Sequence[str]) -> str:
    """Where the value at `path` comes from: the uppermost layer that states it, or a part of it."""
    for layer in reversed(layers):
        table: Any = layer.tree
        for step in path:
            if not isinstance(table, dict) or step not in table:
                break
            table = table[step]
        else:
            return layer.where
        if not isinstance(table, dict):
            return layer.where
    return ""


def merge(lower: Tree, upper: Tree) -> Tree:
    """`upper` laid on `lower`; neither is changed."""
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            if "name" in value and key in COMPONENTS:
                below = {}
            elif "name" in value and key == "optim":
                below = {name: each for name, each in below.items() if name not in OPTIMIZER_KEYS}
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def dataset_spec(text: str) -> Tree | str:
    """What `--data` and `dataset = "..."` mean: a path or URL of shards, or a dataset's spec."""
    looks_like_path = text[:1] in {".", "/", "~"} or any(s in text for s in ("://", "{", ".tar"))
    if not looks_like_path:
        return text
    is_remote(text)  # what will be refused is refused now
    return {"name": "shards", "path": text}


def normal(settings: Mapping[str, object], where: str = "") -> Tree:
    """A layer as nested tables, components too: `{"a.b": 1}` is `{"a": {"b": 1}}`.

    A component's spec and its parameters go together; the preset is left out. Raises InputError.
    """
    tree: Tree = {}
    settings = copy.deepcopy(dict(settings))  # tables are filled in place below
    with located(where):
        for path in sorted(settings, key=lambda path: path.count(".")):
            *folders, last = path.split(".")
            table = tree
            for folder in folders:
                if folder in COMPONENTS and isinstance(table.get(folder), str):
                    table[folder] = {"name": table[folder]}
                table = table.setdefault(folder, {})
                if not isinstance(table, dict):
                    raise InputError(f"{path}: {folder} holds a value, not keys")
            table[last] = settings[path]
        if not isinstance(preset := tree.pop("preset", ""), str):
            raise InputError(f"preset is a name, not {preset!r}")
        for name in TABLES:  # a table that is laid on something else would hide it
            if not isinstance(value := tree.get(name, {}), dict):
                raise InputError(f"{name} is a table, not {literals(value)!r}")
        chosen = [kind for kind in COMPONENTS if kind in tree]
        return tree | {kind: _component_table(kind, tree[kind]) for kind in chosen}


def _component_table(kind: str, chosen: Any) -> Tree:
    """A component's name or table as a table; its name may be a spec, whose keys give way."""
    table = {"name": chosen} if isinstance(chosen, str) else chosen
    if not isinstance(table, dict):
        raise InputError(f"{kind} is a name or a table, not {chosen!r}")
    spec = table.get("name")
    if not isinstance(spec, str):
        return table
    meaning = dataset_spec(spec) if kind == "dataset" else spec
    if not isinstance(meaning, dict):
        name, params = split_spec(meaning)
        meaning = {"name": name, **params}
    return {**meaning, **table, "name": meaning["name"]}


def flat(tree: Mapping[str, Any], prefix: str = "", *, whole: Collection[str] = COMPONENTS) -> Tree:
    """Nested tables as dotted paths; one at a path in `whole` that has a name stays a table."""
    paths: Tree = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and not (path in whole and "name" in value):
            paths |= flat(value, f"{path}.", whole=whole)
        else:
            paths[path] = value
    return paths


def resolved_table(known: Catalog, kind: str, table: Tree) -> Tree:
    """A component's table with all its parameters, checked. Raises InputError."""
    name = table["name"]
    if not isinstance(name, str):
        raise InputError(f"{kind}.name is a component's name, not {name!r}")
    params = {key: value for key, value in table.items() if key != "name"}
    resolved = known.resolve(kind, name, params)
    given = {key: value for key, value in resolved.params.items() if value is not None}
    for value in given.values():
        if isinstance(value, str):  # recipes are written down, printed and passed on
            refuse_secrets(value)
    return {"name": resolved.name, **given}
