"""Options that several commands have, in the same words; how kinds and names are completed."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from simsiam_zoo.api.given import data_settings
from simsiam_zoo.catalog import KINDS, Text, catalog, check_kind
from simsiam_zoo.errors import InputError, ZooError

Option = Callable[[Any], Any]
"""What decorates a command's function."""

# Items in quotes, since CompletionItem became generic only in click 8.2.
Completer = Callable[[click.Context, click.Parameter, str], "list[CompletionItem[str]]"]

DATA_HELP = "A dataset's name; a folder or archive of images; a folder, pattern or URL of shards."
OTHER_DATA_HELP = "A dataset's name, images or shards (default: the run's own)."
_PLURALS = {"studies": "study", "losses": "loss"}


class _Kind(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 only
    """A kind of component; the plural will do."""

    name = "kind"

    def get_missing_message(self, param: click.Parameter, ctx: Any = None) -> str:
        return f"One of {', '.join(KINDS)}."

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = value.lower()
        kind = text if text in KINDS else _PLURALS.get(text, text.removesuffix("s"))
        if kind in KINDS or ctx is None or ctx.resilient_parsing:  # half typed, on completion
            return kind
        try:
            return check_kind(value)
        except InputError as error:
            if {"*", "?"}.intersection(value):
                way = f"simsiam-zoo {ctx.info_name} KIND '{value}'"
                raise InputError(error.what, f"A pattern comes behind a kind: {way}") from None
            kinds = [kind for kind in KINDS if value in catalog().names(kind)]
            if not kinds:
                raise
            ways = " or ".join(f"simsiam-zoo {ctx.info_name} {kind} {value}" for kind in kinds)
            raise InputError(error.what, f"{value} is a {' and a '.join(kinds)}: {ways}") from None

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        return [CompletionItem(kind) for kind in KINDS if kind.startswith(incomplete)]


KIND = _Kind()


def complete_component(kind: str | None = None) -> Completer:
    """A `shell_complete` for names of components of a kind; None takes the argument `kind`."""

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        # A word on stderr would land in the middle of the line that is being typed.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(ZooError):
            known, of = catalog(), kind or KIND.convert(ctx.params["kind"], None, None)
            names = [entry.call.removesuffix("*") for entry in known.entries(of)]
            if incomplete:  # else families, which may have thousands of names, by prefix alone
                names += known.names(of)
                for family in known.families(of):
                    prefix = family.call.removesuffix("*")
                    names += [prefix + name for name in known.members(family)]
            near = dict.fromkeys(name for name in names if name.startswith(incomplete))
            if near or of not in ("dataset", "study"):
                return [CompletionItem(name) for name in near]
        return [CompletionItem(incomplete, type="file")]

    return complete


def spec(*flags: str, kind: str, **more: Any) -> Option:
    """An option whose value is a component's SPEC."""
    return click.option(
        *flags, **{"metavar": "SPEC", "shell_complete": complete_component(kind), **more}
    )


def data(text: str, multiple: bool = False) -> Option:
    """`--data`: what `settings_of` makes a dataset of."""
    return spec("--data", kind="dataset", metavar="NAME|PATH|URL", help=text, multiple=multiple)


def preset(text: str) -> Option:
    """`--preset`, of which each command makes something else."""
    return spec("--preset", kind="preset", metavar="NAME", help=text)


def as_json(what: str) -> Option:
    """`--json`, as `as_json`: print `what` so."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {what} as JSON.")


recipe_file = click.option(
    "--recipe", "file", metavar="FILE", help="A TOML recipe, laid on the preset."
)
assignments = click.option(
    "--set",
    "assignments",
    metavar="KEY=VALUE",
    multiple=True,
    help="Any key of the recipe by its dotted path; may be repeated.",
)


def opened(what: str) -> Option:
    """`--open`, as `opened`."""
    return click.option("--open", "opened", is_flag=True, help=f"Open the {what} in the browser.")


jobs = click.option(
    "--jobs", type=click.IntRange(1), metavar="N", help="Processes (default: all cores)."
)
device = click.option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")
precision = click.option("--precision", metavar="NAME", help="auto, fp32, bf16 or fp16.")


def _keep_silent(ctx: click.Context, param: click.Parameter, quiet: bool) -> bool:
    from simsiam_zoo.runtime.progress import keep_silent

    keep_silent(quiet)
    ctx.call_on_close(lambda: keep_silent(False))  # a process may run several commands
    return quiet


quiet = click.option("--quiet", is_flag=True, callback=_keep_silent, help="No progress.")


def _use_plugins(ctx: click.Context, param: click.Parameter, files: tuple[str, ...]) -> None:
    if files and not ctx.resilient_parsing:
        from simsiam_zoo.catalog.local import use_file

        for file in files:
            use_file(file)


plugin_files = click.option(
    "--plugin",
    metavar="FILE",
    multiple=True,
    expose_value=False,
    is_eager=True,  # the other options' names may be among what it supplies
    callback=_use_plugins,
    help="A Python file as one more plugin; may be repeated.",
)


def settings_of(
    texts: Mapping[str, str | None],
    assigned: Sequence[str] = (),
    data: str | None = None,
    given: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """What flags set in a recipe: dotted paths and values.

    Args:
        texts: of flags by the dotted path that they set; None where one was not given.
        assigned, data: of `--set` and `--data`.
        given: other values by their dotted paths; what is empty or false was not given.

    Raises InputError where one says nothing, or two set the same path.
    """
    settings = {path: value for path, value in (given or {}).items() if value}
    if data is not None:
        settings |= data_settings(data)
    settings |= {path: Text(text) for path, text in texts.items() if text is not None}
    for assignment in assigned:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise InputError(f"--set takes KEY=VALUE, not {assignment!r}")
        if key in settings:
            raise InputError(f"{key} is set twice")
        settings[key] = Text(value)
    return settings
