"""`simsiam-zoo list`: every component, who supplies it, and what cannot be used."""

from __future__ import annotations

import fnmatch
import itertools
import json
import re
from collections.abc import Callable

import click

from simsiam_zoo.catalog import KINDS, Catalog, CatalogEntry, catalog
from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import columns, print_heading, print_line
from simsiam_zoo.errors import InputError, PluginError, did_you_mean, nearest_names

ListRow = dict[str, str]


@click.command(name="list")
@click.argument("kind", required=False, type=options.KIND)
@click.argument("pattern", required=False)
@click.option("--family", metavar="PREFIX", help="The names in one family, such as timm.")
@click.option("--pretrained", is_flag=True, help="Families' names with pretrained weights.")
@options.plugin_files
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of objects.")
def list_(
    kind: str | None, pattern: str | None, family: str | None, pretrained: bool, as_json: bool
) -> None:
    """List components by name: all of them, or those of one KIND that match a PATTERN.

    A name is shown as you would write it. Plugins that cannot be used, and names that two
    plugins supply, follow at the end with the reason. A PATTERN has * and ? as in a shell, and
    looks into families as well.

    \b
    Examples:
      simsiam-zoo list predictors
      simsiam-zoo list backbones 'conv*'
      simsiam-zoo list --family timm --pretrained
    """
    known = catalog()
    if pattern is None and family is None and not pretrained:
        rows = [_row(known, entry) for entry in known.entries(kind)]
        unusable = _unusable(known)
    else:
        rows, unusable = _matching(known, kind, pattern, family, pretrained), []
    if as_json:
        print_line(json.dumps(rows + (unusable if kind is None else []), indent=2))
        return
    if rows:
        _print_rows(rows)
    else:
        print_line(_nothing(known, kind, pattern, pretrained))
    _print_states(rows, unusable)


def _matching(
    known: Catalog, kind: str | None, pattern: str | None, family: str | None, pretrained: bool
) -> list[ListRow]:
    """The rows of what the filters leave; a family counts as each of its names.

    Raises:
        InputError: there is no family of that prefix.
        PluginError: the family that was asked for cannot say what it holds.
    """
    entries = known.entries(kind)
    if family is not None:
        prefix = family.removesuffix("*").removesuffix(":")
        families = {entry.call.removesuffix(":*"): entry for entry in entries if entry.is_family}
        if prefix not in families:
            none = "There are none." if not families else f"There are {', '.join(families)}."
            raise InputError(f"unknown family {prefix!r}", did_you_mean(prefix, families, none))
        entries = (families[prefix],)
    match = re.compile(fnmatch.translate((pattern or "*").lower())).match
    rows: list[ListRow] = []
    for entry in entries:
        if entry.is_family:
            rows += _members(known, entry, match, pretrained, asked=family is not None)
        elif not pretrained and (match(entry.name) or match(entry.call)):
            rows.append(_row(known, entry))
    return rows


def _members(
    known: Catalog,
    entry: CatalogEntry,
    match: Callable[[str], object],
    pretrained: bool,
    asked: bool,
) -> list[ListRow]:
    try:
        names = known.pretrained(entry) if pretrained else known.members(entry)
    except PluginError as error:
        if asked:
            raise
        return [_row(known, entry) | {"status": "broken", "note": error.what}]
    prefix = entry.call.removesuffix("*")
    row = _plain_row(entry) | {"status": "ok", "summary": f"in {entry.call}"}
    return [
        row | {"name": f"{entry.name}:{name}", "call": known.member_call(entry, name)}
        for name in names
        if match(name.lower()) or match((prefix + name).lower())
    ]


def _nothing(known: Catalog, kind: str | None, pattern: str | None, pretrained: bool) -> str:
    """What was not found, and where to look."""
    what = f"name of a {kind}" if kind else "name"
    what += " with pretrained weights" if pretrained else ""
    if pattern is None:
        return f"There is no {what}."
    kinds = (kind,) if kind else KINDS
    names = [name for each in kinds for name in known.names(each)]
    near = nearest_names(pattern.strip("*?").lower(), names)
    other = f"Near are {', '.join(near)}." if near else f"All: simsiam-zoo list {kind or ''}"
    return f"No {what} matches {pattern}. {other}".rstrip()


def _unusable(known: Catalog) -> list[ListRow]:
    return [
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


def _plain_row(entry: CatalogEntry) -> ListRow:
    return {
        "kind": entry.kind,
        "name": f"{entry.name}:*" if entry.is_family else entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "status": entry.status,
        "summary": entry.component.summary,
        "call": entry.call,
    }


def _row(known: Catalog, entry: CatalogEntry) -> ListRow:
    row = _plain_row(entry)
    if entry.note is not None:
        row["note"] = entry.note
    if entry.is_family:
        try:
            row["summary"] = f"{row['summary']} ({len(known.members(entry)):,} names)".strip()
        except PluginError as error:
            row |= {"status": "broken", "note": error.what}
    return row


def _print_rows(rows: list[ListRow]) -> None:
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


def _print_states(rows: list[ListRow], unusable: list[ListRow]) -> None:
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
