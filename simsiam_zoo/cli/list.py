"""`simsiam-zoo list`: every component, who supplies it, and what cannot be used."""

from __future__ import annotations

import itertools
import json

import click

from simsiam_zoo.catalog import Catalog, Entry, catalog
from simsiam_zoo.cli.complete import complete_kind, singular
from simsiam_zoo.cli.text import columns, print_heading, print_line
from simsiam_zoo.errors import PluginError


@click.command(name="list")
@click.argument("kind", required=False, callback=singular, shell_complete=complete_kind)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of objects.")
def list_(kind: str | None, as_json: bool) -> None:
    """List components by name: all of them, or those of one KIND.

    A name is shown as you would write it. Plugins that cannot be used, and names that two
    plugins supply, follow at the end with the reason.
    """
    known = catalog()
    rows = [_row(known, entry) for entry in known.entries(kind)]
    unusable = [
        {
            "kind": "plugin",
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "status": plugin.status,
            "summary": plugin.cause or "",
        }
        for plugin in known.plugins
        if plugin.status != "ok"
    ]
    if as_json:
        print_line(json.dumps(rows + (unusable if kind is None else []), indent=2))
        return
    _print_rows(rows)
    _print_states(rows, unusable)


def _row(known: Catalog, entry: Entry) -> dict[str, str]:
    row = {
        "kind": entry.kind,
        "name": f"{entry.name}:*" if entry.is_family else entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "status": entry.status,
        "summary": entry.component.summary,
        "call": entry.call,
    }
    if entry.note is not None:
        row["note"] = entry.note
    if entry.is_family:
        try:
            row["summary"] = f"{row['summary']} ({len(known.members(entry)):,} names)".strip()
        except PluginError as error:
            row |= {"status": "broken", "note": error.what}
    return row


def _print_rows(rows: list[dict[str, str]]) -> None:
    if not rows:
        print_line("There are none.")
        return
    texts = columns(
        [(row["call"], row["summary"], f"{row['distribution']} {row['version']}") for row in rows],
        wrap=1,
    )
    for kind, group in itertools.groupby(
        zip(rows, texts, strict=True), key=lambda pair: pair[0]["kind"]
    ):
        print_heading(kind)
        for _, text in group:
            print_line(text)


def _print_states(rows: list[dict[str, str]], unusable: list[dict[str, str]]) -> None:
    states = [
        (f"{row['distribution']} {row['version']}", row["status"], row["summary"])
        for row in unusable
    ]
    states += [(row["call"], row["status"], row["note"]) for row in rows if row["status"] != "ok"]
    if states:
        print_line()
        print_heading("needs attention")
        for text in columns(states, wrap=2):
            print_line(text)
