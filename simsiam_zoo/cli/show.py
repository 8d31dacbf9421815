"""`simsiam-zoo show`: all that is known of one component without importing its body."""

from __future__ import annotations

import json

import click

from simsiam_zoo.api.names import Facts, show_component
from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import print_columns, print_heading, print_json, print_line


@click.command()
@click.argument("kind", type=options.KIND)
@click.argument("name", shell_complete=options.complete_component())
@options.plugin_files
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def show(kind: str, name: str, as_json: bool) -> None:
    """Show the component NAME of one KIND: its parameters, origin and an example.

    `timm:*` shows a whole family, and with --json all of its names.
    """
    facts = show_component(kind, name)
    if as_json:
        print_json(facts)
    else:
        _print(facts)


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
