"""`simsiam-zoo plugin`: its commands, each imported when it is called."""

from __future__ import annotations

import importlib

import click

from simsiam_zoo.errors import InputError, did_you_mean

COMMANDS = {
    "new": ("simsiam_zoo.cli.plugin_new:new", "Write a package that supplies one component."),
    "check": ("simsiam_zoo.cli.plugin_check:check", "Ask a package what the contract asks."),
}
"""Each command's `module:attribute`, and its short help, shown without importing the module."""


class PluginGroup(click.Group):
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
            hint = did_you_mean(cmd_name, COMMANDS, otherwise)
            raise InputError(f"there is no command 'plugin {cmd_name}'", hint)
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        debug = (option for option in self.params if option.name == "debug")
        command.params += [option for option in debug if option not in command.params]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands' part of `--help`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=PluginGroup)
def plugin() -> None:
    """Packages of other people's components, and of your own.

    \b
    From nothing to a package that conforms:
      simsiam-zoo plugin new leaky-zoo --kind projector
      pip install -e ./leaky-zoo
      simsiam-zoo plugin check leaky-zoo
    """
