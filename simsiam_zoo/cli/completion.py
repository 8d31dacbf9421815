"""`simsiam-zoo completion`, and how kinds and names are completed and read."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import click
from click.shell_completion import CompletionItem, get_completion_class

from simsiam_zoo.catalog import KINDS, Catalog, catalog, check_kind
from simsiam_zoo.errors import InputError, ZooError

_PLURALS = {"studies": "study", "losses": "loss"}


# In quotes since CompletionItem became generic only in click 8.2.
Completer = Callable[[click.Context, click.Parameter, str], "list[CompletionItem[str]]"]


def singular(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Callback of an argument that is a kind: the plural will do.

    Raises:
        InputError: it is no kind; where it is a component's name, the message has its kind.
    """
    if value is None:
        return None
    text = value.lower()
    kind = text if text in KINDS else _PLURALS.get(text, text.removesuffix("s"))
    if kind in KINDS or ctx.resilient_parsing:  # completion must not fail on what is half typed
        return kind
    try:
        return check_kind(value)
    except InputError as error:
        kinds = [kind for kind in KINDS if value in catalog().names(kind)]
        if not kinds:
            raise
        ways = " or ".join(f"simsiam-zoo {ctx.info_name} {kind} {value}" for kind in kinds)
        raise InputError(error.what, f"{value} is a {' and a '.join(kinds)}: {ways}") from None


def complete_kind(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """A `shell_complete` for kinds."""
    return [CompletionItem(kind) for kind in KINDS if kind.startswith(incomplete)]


def complete_component(kind: str | None = None) -> Completer:
    """A `shell_complete` for names of components.

    Args:
        kind: whose names; None takes the command's own argument `kind`.
    """

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        # A word on stderr would land in the middle of the line that is being typed.
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                return _candidates(catalog(), kind or ctx.params["kind"], incomplete)
            except ZooError:
                return []

    return complete


def _candidates(known: Catalog, kind: str, incomplete: str) -> list[CompletionItem[str]]:
    entries = known.entries(kind)
    found = [
        CompletionItem(entry.call.removesuffix("*"), help=entry.component.summary or None)
        for entry in entries
        if entry.call.startswith(incomplete)
    ]
    calls = {entry.call for entry in entries}
    if incomplete:  # a family may have thousands of names: shown only once there is something typed
        members = (name for name in known.names(kind) if name not in calls)
        found += [CompletionItem(name) for name in members if name.startswith(incomplete)]
        found += _after_prefix(known, kind, incomplete)
    return found


def _after_prefix(known: Catalog, kind: str, incomplete: str) -> list[CompletionItem[str]]:
    """Members of a family whose prefix has been typed: `timm:resn`."""
    return [
        CompletionItem(prefix + name)
        for family in known.families(kind)
        if incomplete.startswith(prefix := family.call.removesuffix("*"))
        for name in known.members(family)
        if (prefix + name).startswith(incomplete)
    ]


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
