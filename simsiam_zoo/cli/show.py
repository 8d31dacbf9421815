"""`simsiam-zoo show`: a component, without importing its body; or a recipe's key."""

from __future__ import annotations

import json
from typing import Any

import click
from click.shell_completion import CompletionItem

from simsiam_zoo.api.names import Facts, show_component
from simsiam_zoo.catalog import KINDS
from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import print_columns, print_heading, print_json, print_line
from simsiam_zoo.errors import InputError


def _complete(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    from simsiam_zoo.recipe.recipe import recipe_keys

    keys = [path for path, _ in recipe_keys() if "." in path]
    return [CompletionItem(each) for each in (*KINDS, *keys) if each.startswith(incomplete)]


@click.command()
@click.argument("kind", metavar="KIND|KEY", shell_complete=_complete)
@click.argument("name", required=False, shell_complete=options.complete_component())
@options.plugin_files
@options.as_json("what is known")
def show(kind: str, name: str | None, as_json: bool) -> None:
    """Show the component NAME of one KIND: its parameters, origin and an example.

    `timm:*` shows a whole family, and with --json all of its names; of a preset its content is
    shown. Or show a KEY of the recipe: its meaning, its default and what each preset has.

    \b
    Examples:
      simsiam-zoo show predictor mlp
      simsiam-zoo show preset digits
      simsiam-zoo show optim.lr
      simsiam-zoo show predictor.hidden_dim
    """
    facts = _key(kind) if name is None else show_component(_kind(kind), name)
    if as_json:
        print_json(facts)
    elif name is None:
        _print_key(facts)
    else:
        _print(facts)


def _kind(word: str) -> str:
    return options.KIND.convert(word, None, click.get_current_context())


def _key(word: str) -> Facts:
    """A recipe's key, or the InputError that helps most where there is none."""
    from simsiam_zoo.api.keys import explain_key

    try:
        return explain_key(word)
    except InputError as error:
        unknown = error
    try:
        kind = _kind(word)
    except InputError as error:  # the name of a component, perhaps
        raise (error if f"{word} is a" in (error.hint or "") else unknown) from None
    raise InputError(f"which {kind}?", f"`simsiam-zoo list {kind}` has the names.")


def _print_key(facts: Facts) -> None:
    print_heading(facts["key"])
    resume = facts.get("operational") and "it may change on resume, and is no part of the identity"
    rows = [
        ("what", facts["summary"]),
        ("valid", facts.get("valid")),
        ("names", ", ".join(facts.get("names", ()))),
        ("default", _value(facts.get("default"))),
        ("operational", resume),
        ("documented", facts["documented"]),
    ]
    print_columns([(head, text) for head, text in rows if text], wrap=1)
    if keys := facts.get("keys"):
        print_line()
        print_columns([*keys.items()], wrap=1)
    if having := facts.get("components"):
        print_line()
        print_heading("components that have it (name, default, meaning)")
        print_columns([_param_row(each) for each in having], wrap=2)
    if presets := facts["presets"]:
        print_line()
        print_heading("what presets have; in others it is the default")
        by_value: dict[str, list[str]] = {}
        for preset, value in presets.items():
            by_value.setdefault(_value(value), []).append(preset)
        print_columns([(value, ", ".join(names)) for value, names in by_value.items()], wrap=1)


def _value(value: Any) -> str:
    """As a recipe's file has it; a component as a spec."""
    if isinstance(value, dict) and "name" in value:
        params = ",".join(f"{key}={_value(each)}" for key, each in value.items() if key != "name")
        return f"{value['name']}:{params}" if params else str(value["name"])
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


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
    if "content" in facts:
        extends = " and ".join(facts["extends"])
        print_line()
        print_heading(f"what it states{f', with what it extends: {extends}' if extends else ''}")
        for line in facts["content"].splitlines():
            print_line(f"  {line}".rstrip())
    print_line()
    print_heading("example")
    print_line(f"  {facts['example']['command']}")
    if facts["example"]["toml"]:
        print_line()
        for line in facts["example"]["toml"].splitlines():
            print_line(f"  {line}")


def _param_row(param: Facts) -> tuple[str, str, str]:
    default, value = "", param["default"]
    if value is not None:
        items = value if isinstance(value, list) else [value]
        default = "/".join(json.dumps(each).strip('"') for each in items)
    texts = [param["help"], param["valid"]]
    if param["operational"]:
        texts.append("may change on resume")
    return param["name"], default, "; ".join(filter(None, texts))
