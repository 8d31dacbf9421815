"""`simsiam-zoo show`: all that is known of one component without importing its body."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from typing import Any

import click
import tomli_w

from simsiam_zoo.catalog import PARTS, CatalogEntry, Param, Value, catalog
from simsiam_zoo.catalog.local import local_file
from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import print_columns, print_heading, print_json, print_line

_USES = {part: f"train --{part}" for part in (*PARTS, "augmentation", "preset")} | {
    "dataset": "train --data",
    "logger": "train --log",
    "protocol": "train --set",
    "study": "ablate",
    "launcher": "ablate five-parts --launcher",
    "format": "export RUN --to",
}
"""What is before the name in an example on the command line, by kind."""

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
    known, family = catalog(), name.removesuffix("*")
    if family.endswith(":"):
        entry = known.family(kind, family.removesuffix(":"))
        facts = _facts(entry, entry.call, f"{entry.call.removesuffix('*')}NAME")
        facts["names"] = known.members(entry)
    else:
        resolved = known.resolve(kind, name)
        facts = _facts(resolved.entry, resolved.name, resolved.name)
        if kind == "preset":
            from simsiam_zoo.recipe.expected import described

            facts["expected"] = described(name)
    if as_json:
        print_json(facts)
    else:
        _print(facts)


def _facts(entry: CatalogEntry, name: str, example: str) -> Facts:
    """Plain values: of the component, and how it is used, where `example` is its name."""
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
        "command": f"simsiam-zoo {_USES[kind]} {shlex.quote(spec)}",
        "toml": None if toml is None else tomli_w.dumps(toml),
    }


def _print(facts: Facts) -> None:
    print_heading(f"{facts['kind']} {facts['name']}")
    rows = [
        ("summary", facts["summary"]),
        ("supplied by", f"{facts['distribution']} {facts['version']}"),
        ("file", facts["file"]),
        ("reference", facts["reference"]),
        ("target", facts["target"]),
        ("full name", facts["id"]),
        ("note", facts["note"]),
        ("names", f"{len(facts['names']):,}" if "names" in facts else ""),
    ]
    print_columns([row for row in rows if row[1]], wrap=1)
    if found := facts.get("expected"):
        print_line()
        print_heading(f"published: {found['figure']:.1f} % by {found['protocol']}")
        keys = ("by", "source", "note", "cost", "download", "data")
        rows = [(key, found[key]) for key in keys if found[key]]
        print_columns([*rows, ("measured", "not here")], wrap=1)
    if facts["params"]:
        print_line()
        print_heading("parameters (name, default, meaning)")
        print_columns([_param_row(param) for param in facts["params"]], wrap=2)
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
