"""docs/commands.md from click: every command with its text, arguments and options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import cleandoc

import click

from simsiam_zoo.cli import PROGRAM, LazyGroup, root

COMMON = {"--debug", "--help"}
"""Options of every command, told once."""

Found = tuple[click.Context, click.Command]


def all_commands() -> Iterator[Found]:
    """Every command that can be called, also those below another, each with its context."""

    def below(group: LazyGroup, parent: click.Context) -> Iterator[Found]:
        for name in group.list_commands(parent):
            command = group.get_command(parent, name)
            assert command is not None
            ctx = click.Context(command, parent, info_name=name)
            if isinstance(command, LazyGroup):
                yield from below(command, ctx)
            else:
                yield ctx, command

    return below(root, click.Context(root, info_name=PROGRAM))


def commands_list() -> str:
    text = []
    for ctx, command in all_commands():
        usage = " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)])
        text += [f"## {ctx.command_path}", "", f"`{usage}`", ""]
        text += described(cleandoc(command.help or ""))
        own = (each for each in command.params if not COMMON & {*each.opts})
        for flags, meaning in filter(None, (each.get_help_record(ctx) for each in own)):
            text += [f"- `{flags}`: {' '.join(meaning.split())}"] if meaning else []
        text.append("")
    return "\n".join(text).rstrip()


def described(text: str) -> Iterator[str]:
    """A help text as Markdown; what click keeps as it is laid out (`\\b`), as a block."""
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.startswith("\b"):
            head, *lines = paragraph.removeprefix("\b").strip().splitlines()
            yield from (head, "", "```text", *(line.strip() for line in lines), "```", "")
        else:
            yield from (" ".join(paragraph.split()), "")
