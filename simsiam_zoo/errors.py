"""The errors that a user may meet: one small tree, one exit code for each branch.

Every error says *what* is wrong, *where*, and the *way out*. The command line turns them into one
message on stderr and an exit code (`cli/__init__.py`); from Python they are ordinary exceptions.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Self


class ZooError(Exception):
    """Base of all errors with a message meant for people: what is wrong where, and the way out."""

    exit_code = 1

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def at(self, where: str) -> Self:
        """This error with the place named before it, unless that is empty."""
        return type(self)(f"{where}: {self.what}", self.hint) if where else self

    def __str__(self) -> str:
        return self.what if self.hint is None else f"{self.what}\n  {self.hint}"


class InputError(ZooError):
    """What the user asked for is wrong: a name, a value, a path, another run's identity."""

    exit_code = 2


@contextmanager
def located(where: str) -> Iterator[None]:
    """What is inside raises an InputError with the place named before it."""
    try:
        yield
    except InputError as error:
        raise error.at(where) from None


class PluginError(ZooError):
    """A component or plugin cannot be used, or one that a run recorded is missing now."""

    exit_code = 3


class DataError(ZooError):
    """Data or a checkpoint is damaged, or a shard cannot be had."""

    exit_code = 4


class DivergedError(ZooError):
    """The run's loss or weights stopped being finite."""

    exit_code = 5


class StoppedError(ZooError):
    """Stopped on request; what was done so far is saved and can be resumed."""

    exit_code = 75


class PeerError(ZooError):
    """Another process of the run failed, with `exit_code` where that is known, or is gone."""

    def __init__(self, what: str, hint: str | None = None, exit_code: int = 1) -> None:
        super().__init__(what, hint)
        self.exit_code = exit_code


def nearest_names(wrong: str, valid: Iterable[str], count: int = 3) -> list[str]:
    """The spellings in `valid` closest to `wrong`, best first; empty where none is close."""
    import difflib  # not at the top: most commands need it for nothing

    return difflib.get_close_matches(wrong, list(valid), n=count, cutoff=0.6)


def did_you_mean(wrong: str, valid: Iterable[str], otherwise: str | None = None) -> str | None:
    """A hint that names the nearest valid spellings, or `otherwise` where none is near."""
    near = nearest_names(wrong, valid)
    return f"Did you mean {' or '.join(near)}?" if near else otherwise


def describe_error(error: BaseException, target: str = "") -> str:
    """What plugin code raised, on one line of at most 300 characters, with the place where known.

    `NameError: name 'nm' is not defined (leaky_zoo/impl.py:12)`: the place is the innermost line of
    the top-level package of `target`, `"module:attribute"` or a module of the plugin.
    """
    package = target.partition(":")[0].partition(".")[0]
    places, at = [], error.__traceback__
    while at is not None:
        if str(at.tb_frame.f_globals.get("__name__")).partition(".")[0] == package:
            _, found, below = at.tb_frame.f_code.co_filename.rpartition(f"{os.sep}{package}")
            places.append(f" ({package if found else ''}{below}:{at.tb_lineno})")
        at = at.tb_next
    text = f"{type(error).__name__}: {error}"
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    place = places[-1] if places else ""
    return (line if len(line) <= 300 else f"{line[:297]}...") + place
