"""What there is to choose from, as plain values: components and plugins. No torch here."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from simsiam_zoo.catalog import (
    KINDS,
    PARTS,
    Catalog,
    CatalogEntry,
    Family,
    Param,
    Plugin,
    Value,
    canonical_name,
    catalog,
)
from simsiam_zoo.catalog.local import local_file, use_file
from simsiam_zoo.errors import InputError, PluginError, ZooError, did_you_mean

ListRow = dict[str, Any]
Facts = dict[str, Any]

_SLOW_MS = 100.0
"""A plugin that takes longer to load is called slow: `list` answers in 250 ms."""

USES = {part: f"train --{part}" for part in (*PARTS, "augmentation", "preset")} | {
    "dataset": "train --data",
    "logger": "train --log",
    "protocol": "train --set",
    "study": "ablate",
    "launcher": "ablate five-parts --launcher",
    "format": "export RUN --to",
}
"""What is before the name in an example on the command line, by kind."""


def list_components(
    kind: str | None = None,
    pattern: str | None = None,
    family: str | None = None,
    pretrained: bool = False,
) -> list[ListRow]:
    """The components of one kind, or of all: what `simsiam-zoo list` shows.

    Args:
        kind: `backbone`, `predictor`, `dataset`, `preset`, `study`, ...
        pattern: with * and ? as in a shell; it looks into families as well.
        family: the prefix of a family, `timm`: its names alone.
        pretrained: only families' names with pretrained weights.

    Returns:
        A dict for each: `kind`, `name`, `distribution`, `version`, `status`, `summary` and `call`,
        how a recipe writes it. `pandas.DataFrame` takes the list.

    InputError: there is no such kind or family.
    """
    known = catalog()
    entries, whole = known.entries(kind), pattern is None and family is None and not pretrained
    if family is not None:
        entries = (_family(entries, family),)
    match = re.compile(fnmatch.translate((pattern or "*").lower())).match
    rows: list[ListRow] = []
    for entry in entries:
        if entry.is_family:
            rows += _family_rows(known, entry, None if whole else match, pretrained)
        elif not pretrained and (match(entry.name) or match(entry.call)):
            rows.append(_row(entry) | (_published(entry) if kind == "preset" else {}))
    return rows


def unusable_plugins() -> list[ListRow]:
    """The plugins that cannot be used, with the cause in `summary`."""
    plugins = [plugin for plugin in catalog().plugins if plugin.status != "ok"]
    return [_fields(each, "plugin") | {"summary": each.cause or ""} for each in plugins]


def show_component(kind: str, name: str) -> Facts:
    """All that is known of one component without importing it: what `simsiam-zoo show` shows.

    `name` may be a spec, or `timm:*` for a whole family. InputError: there is none of that name.
    """
    known, family = catalog(), name.removesuffix("*")
    if family.endswith(":"):
        entry = known.family(kind, family.removesuffix(":"))
        facts = _facts(entry, entry.call, f"{entry.call.removesuffix('*')}NAME")
        facts["names"] = known.members(entry)
    else:
        resolved = known.resolve(kind, name)
        facts = _facts(resolved.entry, resolved.name, resolved.name)
        if kind == "preset":
            import tomli_w

            from simsiam_zoo.recipe.expected import described
            from simsiam_zoo.recipe.layers import preset_content

            facts["expected"] = described(name)

            facts["extends"], content = preset_content(known, resolved.name)
            facts["content"] = tomli_w.dumps(content)
    return facts


def list_plugins() -> list[Facts]:
    """The installed plugins, what each supplies, and what cannot be used and why.

    `supplies` has the names by kind, in the order of `KINDS`, a family's with `:*`; `load_ms` is
    None for one that was not imported.
    """
    return [_plugin(each) for each in catalog().plugins]


def new_plugin(name: str, kind: str, out: Path | str | None = None) -> list[Path]:
    """Write a package that supplies one component of the kind: `simsiam-zoo plugin new`.

    It builds, installs, conforms and trains as it is. `out`: its folder, new or empty; by default
    one of its name.

    Returns:
        Its files. InputError: there is no such kind, or the folder is taken.
    """
    from simsiam_zoo.testing.scaffold import write_package

    folder = Path(canonical_name(name) if out is None else out)
    return [folder / file for file in write_package(name, kind, folder)]


def use_plugin(file: Path | str) -> None:
    """Take a Python file as one more plugin: what `--plugin FILE` does.

    InputError: it cannot be read. PluginError: it supplies nothing.
    """
    use_file(str(file))


def _plugin(plugin: Plugin) -> dict[str, Any]:
    supplies: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for item in plugin.components:
        supplies[item.kind].append(f"{item.name}:*" if isinstance(item, Family) else item.name)
    loaded = plugin.status in ("ok", "broken")
    return {
        "distribution": plugin.distribution,
        "version": plugin.version,
        "entry_point": plugin.name,
        "module": plugin.module,
        "api": plugin.api,
        "status": plugin.status,
        "cause": plugin.cause,
        "load_ms": round(1e3 * plugin.seconds, 1) if loaded else None,
        "slow": loaded and 1e3 * plugin.seconds > _SLOW_MS,
        "supplies": {kind: names for kind, names in supplies.items() if names},
    }


def _family(entries: Iterable[CatalogEntry], name: str) -> CatalogEntry:
    prefix = name.removesuffix("*").removesuffix(":")
    families = {entry.call.removesuffix(":*"): entry for entry in entries if entry.is_family}
    if prefix not in families:
        none = f"There are {', '.join(families)}." if families else "There are none."
        raise InputError(f"unknown family {prefix!r}", did_you_mean(prefix, families, none))
    return families[prefix]


def _family_rows(
    known: Catalog, entry: CatalogEntry, match: Callable[[str], object] | None, pretrained: bool
) -> list[ListRow]:
    """A row for each of its names that matches; one for all of them without `match`."""
    row = _row(entry) | {"name": f"{entry.name}:*"}
    try:
        names = known.pretrained(entry) if pretrained else known.members(entry)
    except PluginError as error:
        return [row | {"status": "broken", "note": error.what}]
    if match is None:
        return [row | {"summary": f"{row['summary']} ({len(names):,} names)".strip()}]
    prefix = entry.call.removesuffix("*")
    row |= {"status": "ok", "summary": f"in {entry.call}"}
    return [
        row | {"name": f"{entry.name}:{name}", "call": known.member_call(entry, name)}
        for name in names
        if match(name.lower()) or match((prefix + name).lower())
    ]


def _row(entry: CatalogEntry) -> ListRow:
    row = _fields(entry, entry.kind) | {"summary": entry.component.summary, "call": entry.call}
    return row if entry.note is None else row | {"note": entry.note}


def _published(entry: CatalogEntry) -> ListRow:
    """What a preset costs, and the figure that its source reached, where it states one."""
    from simsiam_zoo.recipe.expected import described
    from simsiam_zoo.recipe.layers import preset_content

    try:
        found, (_, content) = described(entry.call), preset_content(catalog(), entry.call)
        epochs, data = content["training"]["epochs"], content["dataset"]["name"]
    except ZooError as error:
        return {"status": "broken", "note": error.what}
    except (KeyError, TypeError):  # `plugin check` says what it lacks
        return {}
    cost = "epochs by the data" if epochs == "auto" else f"{epochs} epochs"
    cost = f"{epochs:,} epochs" if isinstance(epochs, int) else cost
    cost += "" if data == "shards" else f" of {data}"
    return {"cost": cost if found is None else found["cost"]} | (
        {} if found is None else {"expected": found}
    )


def _fields(of: CatalogEntry | Plugin, kind: str) -> ListRow:
    names = ("name", "distribution", "version", "status")
    return {"kind": kind, **{name: getattr(of, name) for name in names}}


def _facts(entry: CatalogEntry, name: str, example: str) -> Facts:
    """Plain values: of the component, and how it is used, where `example` is its name."""
    import shlex  # not at the top: a listing does not need it

    component = entry.component
    file = local_file(entry.distribution)
    use = _example(entry.kind, example, component.params)
    if file is not None:  # without it, the name means nothing
        use["command"] = f"{use['command']} --plugin {shlex.quote(str(file.path))}"
    return {
        "kind": entry.kind,
        "name": name,
        "id": f"{entry.full}:*" if name.endswith(":*") else entry.full,
        "distribution": entry.distribution,
        "version": entry.version,
        "status": entry.status,
        "file": None if file is None else str(file.path),
        "note": entry.note,
        "summary": component.summary,
        "reference": component.reference,
        "target": component.target,
        "params": [
            asdict(param) | {"type": param.type_name, "valid": param.describe()}
            for param in component.params
        ],
        "example": use,
    }


def _example(kind: str, name: str, params: tuple[Param, ...]) -> dict[str, str | None]:
    """The component on a command line and in a recipe, where it has a place there."""
    import json
    import shlex

    import tomli_w

    given: dict[str, Value] = {  # a text that must be filled in is shown in capitals
        param.name: param.name.upper() if param.default == "" else param.default
        for param in params
        if param.default is not None
    }
    texts = [f"{p.name}={p.spell(given[p.name])}" for p in params if p.name in given]
    spec = f"{name}:{','.join(texts[:2])}" if texts else name
    toml: Facts | None = {kind: {"name": name, **given}}
    if kind in ("study", "launcher", "format"):
        toml = None
    elif kind == "preset":
        toml = {kind: name}
    elif kind == "logger":
        toml = {"logging": {"loggers": [spec]}}
    elif kind == "protocol":
        toml = {"evaluation": {"protocols": [spec]}}
        spec = f"evaluation.protocols={json.dumps([spec])}"
    return {
        "command": f"simsiam-zoo {USES[kind]} {shlex.quote(spec)}",
        "toml": None if toml is None else tomli_w.dumps(toml),
    }
