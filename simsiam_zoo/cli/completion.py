"""What a shell completes beside commands, options and names: files. In bash, names with a colon.

The scripts are click's own: `_SIMSIAM_ZOO_COMPLETE=bash_source simsiam-zoo` prints one.
"""

from __future__ import annotations

import os
import re
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    split_arg_string,
)

_PATHS = {"CHECKPOINT", "FILE", "FOLDER", "LOCK", "OUT", "PATH", "RUN", "SHARDS", "SOURCE", "STUDY"}
"""Words of a metavar that stand for files and folders."""


class _FileName(click.types.StringParamType):
    """A text that names a file or a folder; the shell completes it."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        return [CompletionItem(incomplete, type="file")]


class _Bash(BashComplete):
    """Click's, where bash takes `timm:resnet18` for three words and completes the last one."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is typed, and that one, as the user wrote them."""
        place = int(os.environ["COMP_CWORD"])
        words: list[str] = []
        pieces = split_arg_string(os.environ["COMP_WORDS"])[1 : place + 1]
        for before, piece in zip(["", *pieces], pieces, strict=False):
            if words and ":" in (before, piece):
                words[-1] += piece
            else:
                words.append(piece)
        if place > len(pieces):
            words.append("")
        *args, self._incomplete = words or [""]
        return args, self._incomplete

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Without what stands before the last colon, which bash leaves as it is."""
        cut = self._incomplete.rfind(":") + 1
        return f"{item.type},{item.value[cut:]}"


def complete_files(command: click.Command) -> None:
    """Let the shell complete the command's parameters that name files."""
    for param in command.params:
        words = re.findall(r"[A-Z]+", param.metavar or (param.name or "").upper())
        if _PATHS.intersection(words) and param.type is click.STRING:
            param.type = _FileName()


add_completion_class(_Bash)
