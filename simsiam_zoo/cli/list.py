"""`simsiam-zoo list`: every component, who supplies it, and what cannot be used."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from typing import Any

import click

from simsiam_zoo.catalog import KINDS, Catalog, CatalogEntry, Plugin, catalog
from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import columns, print_columns, print_heading, print_json, print_line
from simsiam_zoo.errors import InputError, PluginError, did_you_mean, nearest_names

ListRow = dict[str, Any]


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
    unusable = _unusable(known) if whole else []
    if as_json:
        print_json(rows + (unusable if kind is None else []))
        return
    if rows:
        _print_rows(rows)
    else:
        print_line(_nothing(known, kind, pattern, pretrained))
    _print_states(rows, unusable)


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
    plugins = [plugin for plugin in known.plugins if plugin.status != "ok"]
    return [_fields(each, "plugin") | {"summary": each.cause or ""} for each in plugins]


def _row(entry: CatalogEntry) -> ListRow:
    row = _fields(entry, entry.kind) | {"summary": entry.component.summary, "call": entry.call}
    return row if entry.note is None else row | {"note": entry.note}


def _published(entry: CatalogEntry) -> ListRow:
    """The figure that a preset's source reached, and what it cost; empty where it states none."""
    from simsiam_zoo.recipe.expected import described

    try:
        found = described(entry.call)
    except PluginError as error:
        return {"status": "broken", "note": error.what}
    return {} if found is None else {"expected": found}


def _fields(of: CatalogEntry | Plugin, kind: str) -> ListRow:
    names = ("name", "distribution", "version", "status")
    return {"kind": kind, **{name: getattr(of, name) for name in names}}


def _print_rows(rows: list[ListRow]) -> None:
    cells = [
        (row["call"], _summary(row), f"{row['distribution']} {row['version']}") for row in rows
    ]
    last = None
    for row, text in zip(rows, columns(cells, wrap=1), strict=True):
        if row["kind"] != last:
            print_heading(last := row["kind"])
        print_line(text)


def _summary(row: ListRow) -> str:
    if (found := row.get("expected")) is None:
        return str(row["summary"])
    return f"{row['summary']}. Published: {found['figure']:.1f} % ({found['by']}); {found['cost']}"


def _print_states(rows: list[ListRow], unusable: list[ListRow]) -> None:
    states = [
        (f"{row['distribution']} {row['version']}", row["status"], row["summary"])
        for row in unusable
    ]
    states += [(row["call"], row["status"], row["note"]) for row in rows if row["status"] != "ok"]
    if states:
        print_line()
        print_heading("needs attention")
        print_columns(states, wrap=2)
