"""Launchers: who starts the command of an arm, and where. The contract; no torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from simsiam_zoo.catalog import Resolved
from simsiam_zoo.errors import InputError, PluginError

LOG = "log.txt"
"""What a command prints is appended to this file in its folder."""

_METHODS = ("submit", "poll", "cancel")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class LaunchError(InputError):
    """A command cannot be started as it was asked for, or there is no such job."""


@dataclass(frozen=True)
class Resources:
    """What a command asks of the launcher.

    Args:
        cpus: cores; also the number of threads of its numerical libraries, so that figures do not
            depend on where it runs.
        gpus: GPUs of its own. A fraction shares one, where the launcher can do that; 0 asks for
            none, and what the command sees is then the launcher's default.

    Raises:
        InputError: fewer than one core, or a negative number of GPUs.
    """

    cpus: int = 1
    gpus: float = 0

    def __post_init__(self) -> None:
        if self.cpus < 1:
            raise InputError(f"a command needs at least one core, not {self.cpus}")
        if self.gpus < 0:
            raise InputError(f"a command cannot have {self.gpus:g} GPUs")


class Launcher(Protocol):
    """The contract of a component of the kind `launcher`.

    The factory takes the component's parameters and may raise PluginError, which ends the study
    before it begins. Commands are lists of text: nothing of the study is pickled. A launcher may
    have `close()`, which lets go of what it opened (a connection); it is called once, when no job
    is left.
    """

    def submit(self, argv: Sequence[str], folder: Path, resources: Resources) -> str:
        """Start a command, or queue it.

        It runs in the working directory of the caller and with its environment (and
        `thread_variables`), and appends what it prints to `folder/log.txt`.

        Args:
            argv: the program and its arguments; no shell reads them.
            folder: the job's folder; it exists.
            resources: what the command needs.

        Returns:
            The job's id, unlike that of any other job.

        Raises:
            LaunchError: it cannot be started, now or later.
        """
        ...

    def poll(self, job: str) -> int | None:
        """The exit code (-N: killed by signal N), or None while the job waits or runs.

        Raises:
            LaunchError: this launcher has not started such a job.
        """
        ...

    def cancel(self, job: str) -> None:
        """Ask the command to stop, as SIGTERM does, and return at once.

        A job that waits is taken from the queue. To ask again, or when it has ended, does nothing:
        a second SIGTERM would keep a run from saving.

        Raises:
            LaunchError: this launcher has not started such a job.
        """
        ...


def create_launcher(chosen: Resolved) -> Launcher:
    """The launcher that `chosen` means.

    Raises:
        PluginError: it cannot be used.
    """
    launcher: Any = chosen.create()
    missing = [name for name in _METHODS if not callable(getattr(launcher, name, None))]
    if missing:
        raise PluginError(
            f"launcher {chosen.id} cannot be used: it has no {' and no '.join(missing)}"
        )
    return launcher  # type: ignore[no-any-return]


def thread_variables(cpus: int) -> dict[str, str]:
    """Environment variables that hold numerical libraries to `cpus` threads."""
    # All of them: one that the user's shell has set would win over OMP_NUM_THREADS.
    return dict.fromkeys(_THREADS, str(cpus))
