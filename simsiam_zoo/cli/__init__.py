"""The command line: one module per command, imported when the command is called.

`main` is the one place where errors become a message on stderr and an exit code.
"""

from __future__ import annotations

import errno
import gc
import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import click

from simsiam_zoo.cli.text import print_line
from simsiam_zoo.errors import (
    DivergedError,
    InputError,
    PeerError,
    PluginError,
    StoppedError,
    ZooError,
    did_you_mean,
)
from simsiam_zoo.runtime.machine import wait_briefly
from simsiam_zoo.runtime.progress import tell

PROGRAM = "simsiam-zoo"

COMMANDS = {
    "train": ("simsiam_zoo.cli.train:train", "Train a network, evaluate it, give a verdict."),
    "ablate": ("simsiam_zoo.cli.ablate:ablate", "Substitute parts, and report what that does."),
    "tune": ("simsiam_zoo.cli.tune:tune", "A small search for values that a run may lack."),
    "report": ("simsiam_zoo.cli.report:report", "A study's report anew, from its runs."),
    "runs": ("simsiam_zoo.cli.runs:runs", "The runs in a folder: state, verdict, figures."),
    "compare": ("simsiam_zoo.cli.compare:compare", "Runs side by side: what differs, what it did."),
    "evaluate": ("simsiam_zoo.cli.evaluate:evaluate", "Measure frozen features by protocols."),
    "look": ("simsiam_zoo.cli.look:look", "Show a run as one page that opens offline."),
    "embed": ("simsiam_zoo.cli.embed:embed", "Write a run's features of every image to a file."),
    "pack": ("simsiam_zoo.cli.pack:pack", "Turn a data set on disk into shards."),
    "index": ("simsiam_zoo.cli.index:index", "Count and index shards of other makers."),
    "inspect": ("simsiam_zoo.cli.inspect:inspect", "What is in shards, and what is wrong there."),
    "export": ("simsiam_zoo.cli.export:export", "The backbone for timm, torchvision, the Hub, ..."),
    "import": ("simsiam_zoo.cli.import_:import_", "A run from weights trained elsewhere."),
    "list": ("simsiam_zoo.cli.list:list_", "What there is to choose from, and who supplies it."),
    "show": ("simsiam_zoo.cli.show:show", "A component, or a key of the recipe, explained."),
    "plugin": ("simsiam_zoo.cli.plugin:plugin", "Plugins: list, write and check packages."),
    "doctor": ("simsiam_zoo.cli.doctor:doctor", "What this machine has, and what is wrong."),
}
"""Each command's `module:attribute`, and its short help, shown without importing the module."""

_BY_KEY = "Keys of the recipe are given by --set KEY=VALUE."
_INTERRUPTED = 130  # 128 + SIGINT, as shells report it

DEBUG = click.Option(
    ["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error."
)
"""Added to every command, so that `--debug` is found after it as well."""


class LazyGroup(click.Group):
    """A click group over a table of each command's `module:attribute` and short help."""

    def __init__(self, *arguments: Any, table: Mapping[str, tuple[str, str]], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return [*self.table]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module. Raises InputError for an unknown name."""
        if cmd_name not in self.table:
            if ctx.resilient_parsing:  # shell completion
                return None
            otherwise = f"The commands are {', '.join(self.table)}."
            hint = did_you_mean(cmd_name, self.table, otherwise)
            raise InputError(f"there is no command {ctx.command_path + ' ' + cmd_name!r}", hint)
        module, _, attribute = self.table[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        if DEBUG not in command.params:
            command.params.append(DEBUG)
        if ctx.resilient_parsing:  # the shell asks
            importlib.import_module("simsiam_zoo.cli.completion").complete_files(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands' part of `--help`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.table.items()])


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code (see `errors.py`).

    Of the objects of torch and timm, which all stay, garbage collection takes half a second while
    they are imported and another one when Python ends: it comes seldom, and at the end not at all.
    """
    # Not `list(...)`: once the module list.py is imported, that is its name in this package.
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    wait_briefly()
    _prepare_streams()
    alone = arguments is None  # no other code has this process
    if alone:
        gc.set_threshold(20_000, *gc.get_threshold()[1:])
        sys.meta_path.insert(0, _LoadingNotice())
    code = _run_naming_plugins(words)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # its reader has gone; Python would complain once more at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if alone:
        gc.freeze()
        # What Python does at its end is nothing that a Ctrl-C has to interrupt.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


class _LoadingNotice:
    """Tells that torch is loaded, when it is: with what else comes along that takes seconds."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Find nothing: the import system asks the next finder."""
        if name == "torch":
            sys.meta_path.remove(self)
            tell("loading torch ...")


def _run_naming_plugins(words: list[str]) -> int:
    """`_run`; an error that nobody foresaw and that a plugin's code raised is told as the plugin's.

    It is imported only then: the catalogue is there already.
    """
    try:
        return _run(words)
    except (Exception, SystemExit) as error:
        if "--debug" in words:
            raise
        from simsiam_zoo.catalog.blame import plugin_error

        if (told := plugin_error(error)) is None:
            raise
        _tell(told)
        return told.exit_code


def _run(words: list[str]) -> int:
    """The exit code; an error is told on stderr."""
    # Looked for by hand: an error may come up before click has read all options.
    debug = "--debug" in words
    try:
        if "_SIMSIAM_ZOO_COMPLETE" in os.environ:
            importlib.import_module("simsiam_zoo.cli.completion")
        _refuse_bytes(words)
        result = root.main(words, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except ZooError as error:
        if debug:
            import traceback

            traceback.print_exception(error)
        else:
            _tell(error)
        return error.exit_code
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption) and error.ctx and _takes_keys(error.ctx.command):
            from simsiam_zoo.cli.train import key_of

            key, near = key_of(error.option_name), error.possibilities
            way = f"This one is --set {key}=VALUE here." if key else _BY_KEY
            message = f"{error.message} {way}"
            error = click.NoSuchOption(error.option_name, message, None if key else near, error.ctx)
        with suppress(OSError):
            error.show()
        return InputError.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        if isinstance(error.__cause__, EOFError):  # click takes any for Ctrl-D at a prompt
            raise error.__cause__ from None
        _say("Interrupted.")
        return _INTERRUPTED
    except (ImportError, AttributeError, TypeError):
        # What a package that is missing or too old makes of a command, wherever it is called.
        from simsiam_zoo.runtime.machine import unmet_requirements

        unmet = unmet_requirements()
        if debug or not unmet:
            raise
        _say(f"Error: {'; '.join(unmet)}.\nInstall them, or see --debug.")
        return PluginError.exit_code
    except BrokenPipeError:  # the reader (`| head`) has gone; click exits with 1 as well
        return 1
    except OSError as error:
        wrong = {
            errno.ENAMETOOLONG: "cannot be a file here: a name in it is too long",
            errno.ENOSPC: "cannot be written: the disk is full",
        }
        if debug or error.errno not in wrong:
            raise
        _tell(InputError(f"{error.filename or 'the output'} {wrong[error.errno]}"))
        return InputError.exit_code


def _tell(error: ZooError) -> None:
    rank = os.environ.get("RANK", "0")
    # What is everyone's is told by the first rank.
    if rank == "0" or not isinstance(error, (StoppedError, DivergedError, PeerError)):
        _say(f"Error{'' if rank == '0' else f' on rank {rank}'}: {error}")


def _say(text: str) -> None:
    with suppress(OSError):  # nobody may listen any more
        print_line(text, err=True)


def _refuse_bytes(words: Sequence[str]) -> None:
    """Stop at an argument that is no text: recipes, locks and results are UTF-8."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(word).decode("utf-8", "replace")
            raise InputError(
                f"the argument {shown!r} is not UTF-8",
                "Rename the file, or give its folder another name by a symbolic link.",
            ) from None


def _takes_keys(command: click.Command) -> bool:
    return any(param.name == "assignments" for param in command.params)


def _prepare_streams() -> None:
    """A stdout or stderr that was closed (`>&-`) goes to the null device.

    What a terminal's encoding lacks is written as an escape.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # for the whole process
        if hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@click.group(
    cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name=PROGRAM, message="%(prog)s %(version)s")
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
