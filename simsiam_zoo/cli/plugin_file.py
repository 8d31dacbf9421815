"""`--plugin FILE`, of every command that reads names of components."""

from __future__ import annotations

from typing import Any

import click


def _use(ctx: click.Context, param: click.Parameter, files: tuple[str, ...]) -> None:
    if files and not ctx.resilient_parsing:
        from simsiam_zoo.catalog.local import use_file

        for file in files:
            use_file(file)


def plugin_option(command: Any) -> Any:
    """The option itself. It is eager: the other options' names may be among what it supplies."""
    return click.option(
        "--plugin",
        metavar="FILE",
        multiple=True,
        expose_value=False,
        is_eager=True,
        callback=_use,
        help="A Python file as one more plugin; may be repeated.",
    )(command)
