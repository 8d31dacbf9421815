"""A key of the recipe, explained: what it is, and what each preset has. No torch here."""

from __future__ import annotations

from typing import Any

from simsiam_zoo.api.names import Facts
from simsiam_zoo.catalog import PARTS, catalog
from simsiam_zoo.errors import InputError, PluginError, did_you_mean
from simsiam_zoo.recipe.layers import COMPONENTS, preset_content
from simsiam_zoo.recipe.recipe import Recipe, operational_paths, recipe_keys
from simsiam_zoo.recipe.sections import PartOptim

DOCUMENTED = "docs/recipes.md"

_NAMES = {"integer": "an integer", "number": "a number", "boolean": "true or false"}
_NAMES |= {"string": "a text", "object": "a table"}
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def explain_key(key: str) -> Facts:
    """What a recipe's key is: what `simsiam-zoo show optim.lr` shows.

    Returns:
        A dict: `key`, `summary`, `valid` (what it may be), `default`, `operational` (it may change
        on resume), `presets` (name → what that preset states) and `documented`. For a part,
        `names`; for a component's parameter, `components`, those that have it; for a table,
        `keys` and their meaning.

    InputError: there is no such key.
    """
    section, _, below = key.partition(".")
    if section in COMPONENTS:
        found = _of_part(section, below) if below not in ("", "name") else _part(section)
    elif key.startswith("optim.parts."):
        found = _of_part_optim(key)
    else:
        found = _fixed(key)
    if found is None:
        raise _unknown(key)
    presets = {} if "keys" in found else preset_values(key)
    return {"key": key, **found, "presets": presets, "documented": DOCUMENTED}


def preset_values(key: str) -> dict[str, Any]:
    """What each preset states of a key; those that state nothing are left out."""
    values = {}
    for entry in catalog().entries("preset"):
        try:
            table: Any = preset_content(catalog(), entry.call)[1]
        except PluginError:  # `list preset` says what is wrong with it
            continue
        for step in key.split("."):
            table = table.get(step) if isinstance(table, dict) else None
        if table is not None:
            values[entry.call] = table
    return values


def _fixed(key: str) -> Facts | None:
    fields = dict(recipe_keys())
    if key in fields:
        schema = Recipe.model_json_schema()
        found = schema
        for step in key.split("."):
            found = _resolved(found, schema)["properties"][step]
        default = fields[key].get_default(call_default_factory=True)
        return _described(fields[key].description, found, schema, default, key)
    below = {path: each.description for path, each in fields.items() if path.startswith(f"{key}.")}
    return {"summary": f"the table [{key}]", "keys": below} if below else None


def _of_part_optim(key: str) -> Facts | None:
    part, _, name = key.removeprefix("optim.parts.").partition(".")
    if part not in PARTS or name not in PartOptim.model_fields:
        return None
    schema, field = PartOptim.model_json_schema(), PartOptim.model_fields[name]
    said = field.description or f"optim.{name}, of the {part} alone; inherit: what the run has"
    return _described(said, schema["properties"][name], schema, field.default, key)


def _described(said: Any, found: Any, schema: Any, default: Any, key: str) -> Facts:
    return {
        "summary": said,
        "valid": _valid(found, schema),
        "default": [*default] if isinstance(default, tuple) else default,
        "operational": key in operational_paths(),
    }


def _part(kind: str) -> Facts:
    names = [entry.call for entry in catalog().entries(kind)]
    said = f"the run's {kind}: a component's name or spec; `simsiam-zoo show {kind} NAME` has each"
    return {"summary": said, "default": None, "operational": False, "names": names}


def _of_part(kind: str, name: str) -> Facts | None:
    having = [
        {"name": entry.call, "default": param.default, "help": param.help}
        | {"valid": param.describe(), "operational": param.operational}
        for entry in catalog().entries(kind)
        for param in entry.component.params
        if param.name == name
    ]
    return {"summary": f"a parameter of the {kind}", "components": having} if having else None


def _resolved(found: Any, schema: Any) -> Any:
    """The part of a JSON schema that a reference in it names."""
    name = str(found.get("$ref", "")).rpartition("/")[2]
    return schema["$defs"][name] if name else found


def _valid(found: Any, schema: Any) -> str:
    """What a value may be, in words, of its JSON schema."""
    found = _resolved(found, schema)
    if "anyOf" in found:
        each = [_valid(one, schema) for one in found["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(each))
    if "const" in found or "enum" in found:
        *most, last = found.get("enum", [found.get("const")])
        return f"{', '.join(most)} or {last}" if most else str(last)
    if found.get("type") == "array":
        return f"a list, each {_valid(found.get('items', {}), schema)}"
    bounds = [f"{sign} {found[word]:g}" for word, sign in _BOUNDS.items() if word in found]
    return " ".join([_NAMES.get(str(found.get("type")), "a value"), " and ".join(bounds)]).strip()


def _unknown(key: str) -> InputError:
    valid = [path for path, _ in recipe_keys()]
    valid = [*dict.fromkeys(path.partition(".")[0] for path in valid), *valid]
    valid += [
        f"{kind}.{param.name}"
        for kind in COMPONENTS
        for entry in catalog().entries(kind)
        for param in entry.component.params
    ]
    valid = [*dict.fromkeys(valid)]
    same = [path for path in valid if path.rpartition(".")[2] == key]
    otherwise = f"{DOCUMENTED} has all; `simsiam-zoo show optim` those of one table."
    hint = f"Did you mean {' or '.join(same)}?" if same else did_you_mean(key, valid, otherwise)
    return InputError(f"a recipe has no key {key!r}", hint)
