"""`simsiam-zoo plugin`: commands about the packages that supply components."""

from __future__ import annotations

import click

from simsiam_zoo.cli import LazyGroup

COMMANDS = {
    "list": ("simsiam_zoo.cli.plugin_list:list_", "What is installed, and what became of it."),
    "new": ("simsiam_zoo.cli.plugin_new:new", "Write a package that supplies one component."),
    "check": ("simsiam_zoo.cli.plugin_check:check", "Ask a package what the contract asks."),
}


@click.group(cls=LazyGroup, table=COMMANDS, said="plugin ")
def plugin() -> None:
    """Plugins: the packages that supply components, other people's and your own.

    \b
    From nothing to a package that conforms:
      simsiam-zoo plugin new leaky-zoo --kind projector
      pip install -e ./leaky-zoo
      simsiam-zoo plugin check leaky-zoo
      simsiam-zoo plugin list
    """
