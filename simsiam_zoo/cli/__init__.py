"""The command line: one module per command, imported when the command is called.

`main` is the one place where errors become a message on stderr and an exit code.
"""

from __future__ import annotations

import errno
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from simsiam_zoo.cli.lazy import DEBUG, LazyGroup
from simsiam_zoo.errors import (
    DivergedError,
    InputError,
    PeerError,
    PluginError,
    StoppedError,
    ZooError,
)

PROGRAM = "simsiam-zoo"

COMMANDS = {
    "train": ("simsiam_zoo.cli.train:train", "Train a network, evaluate it, give a verdict."),
    "ablate": ("simsiam_zoo.cli.ablate:ablate", "Substitute parts, and report what that does."),
    "report": ("simsiam_zoo.cli.report:report", "A study's report anew, from its runs."),
    "evaluate": ("simsiam_zoo.cli.evaluate:evaluate", "Measure frozen features by protocols."),
    "look": ("simsiam_zoo.cli.look:look", "Show a run as one page that opens offline."),
    "embed": ("simsiam_zoo.cli.embed:embed", "Write a run's features of every image to a file."),
    "pack": ("simsiam_zoo.cli.pack:pack", "Turn a data set on disk into shards."),
    "index": ("simsiam_zoo.cli.index:index", "Count and index shards of other makers."),
    "inspect": ("simsiam_zoo.cli.inspect:inspect", "What is in shards, and what is wrong there."),
    "export": ("simsiam_zoo.cli.export:export", "The backbone for timm, torchvision, the Hub, ..."),
    "import": ("simsiam_zoo.cli.import_:import_", "A run from weights trained elsewhere."),
    "list": ("simsiam_zoo.cli.list:list_", "What there is to choose from, and who supplies it."),
    "show": ("simsiam_zoo.cli.show:show", "One component: parameters, reference, example."),
    "plugin": ("simsiam_zoo.cli.plugin:plugin", "Plugins: list, write and check packages."),
    "doctor": ("simsiam_zoo.cli.doctor:doctor", "What this machine has, and what is wrong."),
    "completion": ("simsiam_zoo.cli.completion:completion", "The shell's completion script."),
}
"""Each command's `module:attribute`, and its short help, shown without importing the module."""

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_BROKEN_PIPE = 1  # what click exits with where it meets the broken pipe before we do


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code (see `errors.py`)."""
    # Not `list(...)`: once the module list.py is imported, that is its name in this package.
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    # Looked for by hand: an error may come up before click has read all options.
    debug = "--debug" in words
    try:
        code = _run(words)
    except ZooError as error:
        code = error.exit_code
        rank = os.environ.get("RANK", "0")
        if debug:
            traceback.print_exception(error)
        elif rank == "0":
            click.echo(f"Error: {error}", err=True)
        elif not isinstance(error, (StoppedError, DivergedError, PeerError)):
            # Those are everyone's, and the first rank says them.
            click.echo(f"Error on rank {rank}: {error}", err=True)
    except click.ClickException as error:
        code = InputError.exit_code
        error.show()
    except (click.Abort, KeyboardInterrupt):
        code = _INTERRUPTED
        click.echo("Interrupted.", err=True)
    except (ImportError, AttributeError, TypeError):
        # What a package that is missing or too old makes of a command, wherever it is called.
        from simsiam_zoo.runtime.requirements import unmet_requirements

        unmet = unmet_requirements()
        if debug or not unmet:
            raise
        code = PluginError.exit_code
        click.echo(f"Error: {'; '.join(unmet)}.\nInstall them, or see --debug.", err=True)
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        code = _BROKEN_PIPE
        # The reader (`| head`) has gone; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _run(words: list[str]) -> int:
    result = root.main(words, prog_name=PROGRAM, standalone_mode=False)
    sys.stdout.flush()
    return result if isinstance(result, int) else 0


def _print_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    try:
        version = importlib.metadata.version(PROGRAM)
    except importlib.metadata.PackageNotFoundError:
        version = "(not installed)"
    click.echo(f"{PROGRAM} {version}")
    ctx.exit()


@click.group(
    cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def root(**_: Any) -> None:
    """Take SimSiam apart: train it, replace one of its parts, see what the part was for.

    A run has five parts: backbone, projector, predictor, gradient policy and loss.
    Each is a named component, and an ablation puts another in its place.

    \b
    First steps:
      simsiam-zoo train                    a first run
      simsiam-zoo train --gradient none    the same without stop-gradient
      simsiam-zoo list                     what there is to choose from
      simsiam-zoo show predictor mlp       what one component takes
    """


root.params.append(DEBUG)
