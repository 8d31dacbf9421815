"""`simsiam-zoo show`: all that is known of one component without importing its body."""

from __future__ import annotations

import json
import shlex
from typing import Any

import click
import tomli_w

from simsiam_zoo.catalog import PARTS, Catalog, CatalogEntry, Param, Value, catalog
from simsiam_zoo.catalog.local import local_file
from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import columns, print_heading, print_line

_FLAGS = {part: f"--{part}" for part in (*PARTS, "augmentation", "preset")} | {"dataset": "--data"}

Facts = dict[str, Any]


@click.command()
@click.argument("kind", type=options.KIND)
@click.argument("name", shell_complete=options.complete_component())
@options.plugin_files
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def show(kind: str, name: str, as_json: bool) -> None:
    """Show the component NAME of one KIND: its parameters, origin and an example.

    `timm:*` shows a whole family, and with --json all of its names.
    """
    known = catalog()
    family = name.removesuffix("*")
    facts = (
        _family_facts(known, known.family(kind, family.removesuffix(":")))
        if family.endswith(":")
        else _component_facts(known, kind, name)
    )
    if as_json:
        print_line(json.dumps(facts, indent=2))
    else:
        _print(facts)


def _component_facts(known: Catalog, kind: str, name: str) -> Facts:
    resolved = known.resolve(kind, name)
    facts = {"kind": kind, "name": resolved.name, "id": resolved.id} | _facts(resolved.entry)
    example = _example(kind, resolved.name, resolved.entry.component.params)
    if facts["file"] is not None:  # without it, the name means nothing
        example["command"] = f"{example['command']} --plugin {shlex.quote(facts['file'])}"
    return facts | {"example": example}


def _family_facts(known: Catalog, entry: CatalogEntry) -> Facts:
    names = known.members(entry)
    member = entry.call.removesuffix("*") + "NAME"
    facts = {"kind": entry.kind, "name": entry.call, "id": f"{entry.distribution}/{entry.name}:*"}
    example = _example(entry.kind, member, entry.component.params)
    return facts | _facts(entry) | {"example": example, "names": names}


def _facts(entry: CatalogEntry) -> Facts:
    component = entry.component
    file = local_file(entry.distribution)
    return {
        "distribution": entry.distribution,
        "version": entry.version,
        "status": entry.status,
        "file": None if file is None else str(file.path),
        "note": entry.note,
        "summary": component.summary,
        "reference": component.reference,
        "target": component.target,
        "params": [_param_facts(param) for param in component.params],
    }


def _param_facts(param: Param) -> Facts:
    return {
        "name": param.name,
        "type": param.type_name,
        "default": param.default,
        "min": param.min,
        "max": param.max,
        "choices": list(param.choices),
        "words": list(param.words),
        "operational": param.operational,
        "valid": param.describe(),
        "help": param.help,
    }


def _example(kind: str, name: str, params: tuple[Param, ...]) -> dict[str, str | None]:
    """The component on a command line and in a recipe, where it has a place there."""
    values = {param.name: _example_value(param) for param in params}
    given = {key: value for key, value in values.items() if value is not None}
    texts = [f"{p.name}={p.spell(given[p.name])}" for p in params if p.name in given]
    spec = f"{name}:{','.join(texts[:2])}" if texts else name
    if kind == "protocol":
        return {
            "command": f"simsiam-zoo train --set evaluation.protocols='{json.dumps([spec])}'",
            "toml": tomli_w.dumps({"evaluation": {"protocols": [spec]}}),
        }
    if kind == "logger":
        return {
            "command": f"simsiam-zoo train --log {shlex.quote(spec)}",
            "toml": tomli_w.dumps({"logging": {"loggers": [spec]}}),
        }
    if kind == "study":
        return {"command": f"simsiam-zoo ablate {shlex.quote(name)}", "toml": None}
    if kind in ("launcher", "format"):
        use = "ablate five-parts --launcher" if kind == "launcher" else "export RUN --to"
        return {"command": f"simsiam-zoo {use} {shlex.quote(spec)}", "toml": None}
    table = name if kind == "preset" else {"name": name, **given}
    return {
        "command": f"simsiam-zoo train {_FLAGS[kind]} {shlex.quote(spec)}",
        "toml": tomli_w.dumps({kind: table}),
    }


def _example_value(param: Param) -> Value:
    """The default; a text that must be filled in is shown in capitals."""
    return param.name.upper() if param.default == "" else param.default


def _print(facts: Facts) -> None:
    print_heading(f"{facts['kind']} {facts['name']}")
    origin = [
        ("supplied by", f"{facts['distribution']} {facts['version']}"),
        ("file", facts["file"] or ""),
        ("reference", facts["reference"] or ""),
        ("target", facts["target"]),
        ("full name", facts["id"]),
        ("note", facts["note"] or ""),
        ("names", f"{len(facts['names']):,}" if "names" in facts else ""),
    ]
    rows = [("summary", facts["summary"]), *origin]
    _print_columns([row for row in rows if row[1]], wrap=1)
    if facts["params"]:
        print_line()
        print_heading("parameters (name, default, meaning)")
        _print_columns([_param_row(param) for param in facts["params"]], wrap=2)
    print_line()
    print_heading("example")
    print_line(f"  {facts['example']['command']}")
    if facts["example"]["toml"]:
        print_line()
        for line in facts["example"]["toml"].splitlines():
            print_line(f"  {line}")


def _param_row(param: Facts) -> tuple[str, str, str]:
    default = "" if param["default"] is None else json.dumps(param["default"]).strip('"')
    texts = [param["help"], param["valid"]]
    if param["operational"]:
        texts.append("may change on resume")
    return param["name"], default, "; ".join(filter(None, texts))


def _print_columns(rows: list[tuple[str, ...]], wrap: int) -> None:
    for text in columns(rows, wrap=wrap):
        print_line(text)
