"""`simsiam-zoo plugin`: commands about plugins, each imported when it is called."""

from __future__ import annotations

import importlib

import click
from click.shell_completion import CompletionItem

from simsiam_zoo.cli import _DEBUG as DEBUG
from simsiam_zoo.errors import InputError, did_you_mean

COMMANDS = {
    "list": ("simsiam_zoo.cli.plugin_list:list_", "What is installed, and what became of it."),
}
"""Each command's `module:attribute`, and its short help, shown without importing the module."""


class LazyPluginGroup(click.Group):
    """A click group that knows its commands from `COMMANDS` alone."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module. Raises InputError for an unknown name."""
        if cmd_name not in COMMANDS:
            if ctx.resilient_parsing:  # shell completion
                return None
            otherwise = f"The commands are {', '.join(COMMANDS)}."
            raise InputError(
                f"there is no command 'plugin {cmd_name}'",
                did_you_mean(cmd_name, COMMANDS, otherwise),
            )
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        if DEBUG not in command.params:  # so that --debug is found after the command as well
            command.params.append(DEBUG)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands' part of `--help`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Command names and the group's own options."""
        commands = [
            CompletionItem(name, help=text)
            for name, (_, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=LazyPluginGroup)
def plugin() -> None:
    """Plugins: the packages that supply components.

    \b
    Examples:
      simsiam-zoo plugin list
    """
