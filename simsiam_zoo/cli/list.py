"""`simsiam-zoo list`: every component, who supplies it, and what cannot be used."""

from __future__ import annotations

import click

from simsiam_zoo.api.names import ListRow, list_components, unusable_plugins
from simsiam_zoo.catalog import HOST, KINDS, catalog
from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import columns, print_columns, print_heading, print_json, print_line
from simsiam_zoo.errors import InputError, nearest_names


@click.command(name="list")
@click.argument("kind", required=False, type=options.KIND)
@click.argument("pattern", required=False)
@click.option("--kind", "of", type=options.KIND, help="The same as the argument KIND.")
@click.option("--family", metavar="PREFIX", help="The names in one family, such as timm.")
@click.option("--pretrained", is_flag=True, help="Families' names with pretrained weights.")
@options.plugin_files
@options.as_json("the list")
def list_(
    kind: str | None,
    pattern: str | None,
    of: str | None,
    family: str | None,
    pretrained: bool,
    as_json: bool,
) -> None:
    """List components by name: all of them, or those of one KIND that match a PATTERN.

    A name is shown as you would write it, with the package that supplies it where that is not
    simsiam-zoo. Plugins that cannot be used, and names that two plugins supply, follow at the end
    with the reason. A PATTERN has * and ? as in a shell, and looks into families as well.

    \b
    Examples:
      simsiam-zoo list predictors
      simsiam-zoo list backbones 'conv*'
      simsiam-zoo list --family timm --pretrained
    """
    if of is not None and kind is not None:
        raise InputError(f"the kind is said twice: {kind}, and --kind {of}", "Leave one out.")
    kind = of or kind
    rows = list_components(kind, pattern, family, pretrained)
    whole = pattern is None and family is None and not pretrained
    unusable = unusable_plugins() if whole else []
    if as_json:
        print_json(rows + (unusable if kind is None else []))
        return
    if rows:
        _print_rows(rows)
    else:
        print_line(_nothing(kind, pattern, pretrained))
    _print_states(rows, unusable)


def _nothing(kind: str | None, pattern: str | None, pretrained: bool) -> str:
    """What was not found, and where to look."""
    what = f"name of a {kind}" if kind else "name"
    what += " with pretrained weights" if pretrained else ""
    if pattern is None:
        return f"There is no {what}."
    kinds = (kind,) if kind else KINDS
    names = [name for each in kinds for name in catalog().names(each)]
    near = nearest_names(pattern.strip("*?").lower(), names)
    other = f"Near are {', '.join(near)}." if near else f"All: simsiam-zoo list {kind or ''}"
    return f"No {what} matches {pattern}. {other}".rstrip()


def _print_rows(rows: list[ListRow]) -> None:
    cells = [(row["call"], _summary(row)) for row in rows]
    last = None
    for row, text in zip(rows, columns(cells, wrap=1), strict=True):
        if row["kind"] != last:
            print_heading(last := row["kind"])
        print_line(text)


def _summary(row: ListRow) -> str:
    said = str(row["summary"])
    if (found := row.get("expected")) is not None:
        said += f". Published: {found['figure']:.1f} % ({found['by']}); {found['cost']}"
    elif row.get("cost", said) not in said:
        said += f"; {row['cost']}"
    return said if row["distribution"] == HOST else f"{said} ({row['distribution']})"


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
