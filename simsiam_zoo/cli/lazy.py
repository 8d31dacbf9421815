"""Command groups that know their commands by name: each is imported when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from simsiam_zoo.errors import InputError, did_you_mean

DEBUG = click.Option(
    ["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error."
)
"""Added to every command, so that `--debug` is found after it as well."""


class LazyGroup(click.Group):
    """A click group over a table.

    Args:
        table: each command's `module:attribute`, and its short help, shown without importing.
        said: how the group is called in front of a command's name, in errors.
    """

    def __init__(
        self, *arguments: Any, table: Mapping[str, tuple[str, str]], said: str = "", **more: Any
    ) -> None:
        super().__init__(*arguments, **more)
        self.table = table
        self._said = said

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return [*self.table]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module. Raises InputError for an unknown name."""
        if cmd_name not in self.table:
            if ctx.resilient_parsing:  # shell completion
                return None
            otherwise = f"The commands are {', '.join(self.table)}."
            raise InputError(
                f"there is no command {self._said + cmd_name!r}",
                did_you_mean(cmd_name, self.table, otherwise),
            )
        module, _, attribute = self.table[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        if DEBUG not in command.params:
            command.params.append(DEBUG)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands' part of `--help`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.table.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Command names and the group's own options."""
        commands = [
            CompletionItem(name, help=text)
            for name, (_, text) in self.table.items()
            if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)
