"""`simsiam-zoo plugin list`: every plugin, what it supplies, how long it took, what is wrong."""

from __future__ import annotations

import json
from typing import Any

import click

from simsiam_zoo.catalog import KINDS, Family, Plugin, catalog
from simsiam_zoo.cli.text import columns, print_heading, print_line

_SLOW_MS = 100.0
"""Loading one plugin for longer than this is worth a word: `list` answers in 250 ms."""


@click.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of objects.")
def list_(as_json: bool) -> None:
    """List the installed plugins: who supplies what, and what cannot be used and why.

    The time is what importing the plugin and asking it for its components took.
    """
    facts = [plugin_facts(plugin) for plugin in catalog().plugins]
    if as_json:
        print_line(json.dumps(facts, indent=2))
        return
    rows = [(f["distribution"], f["version"], f["api"], _ms(f), f["status"]) for f in facts]
    heads = columns(rows, wrap=4)
    for head, one in zip(heads, facts, strict=True):
        print_heading(head[2:])
        details = [*_supplies(one), *([("cause", one["cause"])] if one["cause"] else [])]
        for text in columns(details, wrap=1) if details else ():
            print_line(text)


def plugin_facts(plugin: Plugin) -> dict[str, Any]:
    """One plugin as plain values.

    `supplies` has the names by kind, in the order of `KINDS`, a family's with `:*`; `counts` how
    many they are. `load_ms` is None for a plugin that was not imported.
    """
    supplies: dict[str, list[str]] = {}
    for kind in KINDS:
        names = [
            f"{item.prefix}:*" if isinstance(item, Family) else item.name
            for item in plugin.components
            if item.kind == kind
        ]
        if names:
            supplies[kind] = names
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
        "slow": loaded and is_slow(plugin),
        "counts": {kind: len(names) for kind, names in supplies.items()},
        "supplies": supplies,
    }


def is_slow(plugin: Plugin) -> bool:
    """Whether loading it takes so long that every command is felt to start late."""
    return 1e3 * plugin.seconds > _SLOW_MS


def _ms(facts: dict[str, Any]) -> str:
    if facts["load_ms"] is None:
        return "not loaded"
    return f"{facts['load_ms']:.0f} ms{', slow' if facts['slow'] else ''}"


def _supplies(facts: dict[str, Any]) -> list[tuple[str, str]]:
    return [(f"{len(names)} {kind}", ", ".join(names)) for kind, names in facts["supplies"].items()]
