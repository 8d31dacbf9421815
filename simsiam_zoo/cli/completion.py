"""`simsiam-zoo completion`: the script by which a shell completes our command line."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_INSTALL = {
    "bash": "simsiam-zoo completion bash > ~/.local/share/bash-completion/completions/simsiam-zoo",
    "zsh": "simsiam-zoo completion zsh > ~/.zfunc/_simsiam-zoo   (with ~/.zfunc in fpath)",
    "fish": "simsiam-zoo completion fish > ~/.config/fish/completions/simsiam-zoo.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(list(_INSTALL)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    Commands, options, and the names of components and their families are completed. A comment in
    the script says where to put it.
    """
    root = ctx.find_root()
    maker = get_completion_class(shell)
    if maker is None or root.info_name is None:
        raise click.ClickException(f"click cannot complete for {shell}")
    variable = f"_{root.info_name.upper().replace('-', '_')}_COMPLETE"
    script = maker(root.command, {}, root.info_name, variable).source()
    comment = f"# Install for good, then start a new shell:\n#   {_INSTALL[shell]}"
    # zsh finds a completion file by its first line, which must stay the first.
    first, newline, rest = script.partition("\n")
    if first.startswith("#compdef"):
        script = f"{first}{newline}{comment}\n{rest}"
    else:
        script = f"{comment}\n{script}"
    click.echo(script)
