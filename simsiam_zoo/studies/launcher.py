"""Launchers: who starts the command of an arm, and where. The contract, and `local`."""

from __future__ import annotations

import math
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

from simsiam_zoo.catalog import Resolved
from simsiam_zoo.errors import InputError, PluginError
from simsiam_zoo.runtime.machine import available_cores
from simsiam_zoo.studies.die_with_parent import die_with_parent

LOG = "log.txt"
"""What a command prints is appended to this file in its folder."""

SHARED_GPU = "{} runs at once share one GPU: --gpus 1 gives each its own, --gpus 0.5 half of one"
"""What is told where there is a GPU, and none is asked for."""

_ROUNDING = 1e-6  # of shares of a GPU, which are no binary fractions
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class LaunchError(InputError):
    """A command cannot be started as it was asked for, or there is no such job."""


@dataclass(frozen=True)
class Resources:
    """What a command asks of the launcher.

    Args:
        cpus: cores, and threads of its numerical libraries.
        gpus: GPUs of its own. A number below 1 shares one, where the launcher can do that; with 0
            the command sees what the launcher's own default is.

    Raises LaunchError for a number of GPUs that nobody can hand out, 1.5 say.
    """

    cpus: int = 1
    gpus: float = 0

    def __post_init__(self) -> None:
        if not (0 <= self.gpus < 1 or (self.gpus > 0 and float(self.gpus).is_integer())):
            raise LaunchError(
                f"a run cannot have {self.gpus:g} GPUs", "Whole ones, or a part of one: 0.25."
            )


@runtime_checkable
class Launcher(Protocol):
    """The contract of a component of the kind `launcher`.

    The factory takes the component's parameters and may raise PluginError, which ends the study
    before it begins. A launcher may have `close()`, which lets go of what it opened (a connection);
    it is called once, when no job is left. `poll` and `cancel` raise LaunchError for a job that it
    has not started.
    """

    def submit(self, argv: Sequence[str], folder: Path, resources: Resources) -> str:
        """Start a command, or queue it; the job's id, unlike that of any other job.

        It runs in the working directory of the caller and with its environment (and
        `thread_variables`), and appends what it prints to `folder/log.txt`; the folder exists. No
        shell reads `argv`. Raises LaunchError where it cannot be started, now or later.
        """
        ...

    def poll(self, job: str) -> int | None:
        """The exit code (-N: killed by signal N), or None while the job waits or runs."""
        ...

    def cancel(self, job: str) -> None:
        """Ask the command to stop, as SIGTERM does, and return at once.

        A job that waits is taken from the queue. To ask again, or when it has ended, does nothing:
        a second SIGTERM would keep a run from saving.
        """
        ...


def create_launcher(chosen: Resolved) -> Launcher:
    """The launcher that `chosen` means. Raises PluginError where it cannot be used."""
    launcher = chosen.create()
    if isinstance(launcher, Launcher):
        return launcher
    raise PluginError(f"launcher {chosen.id} cannot be used: it must have submit, poll and cancel")


def thread_variables(cpus: int) -> dict[str, str]:
    """Environment variables that hold numerical libraries to `cpus` threads."""
    # All of them: one that the user's shell has set would win over OMP_NUM_THREADS.
    return dict.fromkeys(_THREADS, str(cpus))


def default_jobs(resources: Resources) -> int:
    """Jobs at once where nobody named a number: this machine's cores and GPUs have room for them.

    Where it has no GPU, those that are asked for are another machine's, and do not count.
    """
    by_cores = max(1, available_cores() // resources.cpus)
    gpus = len(visible_gpus()) if resources.gpus else 0
    if not gpus:
        return by_cores
    by_gpus = gpus * math.floor(1 / min(resources.gpus, 1) + _ROUNDING)
    return max(1, min(by_cores, by_gpus // math.ceil(resources.gpus)))


@dataclass
class _Job:
    argv: list[str]
    folder: Path
    cpus: int
    gpus: float
    held: dict[str, float] = field(default_factory=dict)  # GPU → the share that it has of it
    process: subprocess.Popen[bytes] | None = None
    asked: bool = False
    exit_code: int | None = None


class LocalLauncher:
    """Each command in a process group of its own, so that Ctrl-C reaches the caller alone.

    The caller passes it on by `cancel`: with the terminal's a run would get two signals, and the
    second one keeps it from saving. When the caller dies, by SIGKILL too, Linux asks the commands
    to stop; call `submit` from a thread that lives as long as the process (the main one).

    GPUs are handed out whole, or one in shares: a job sees only its own, and waits while others
    hold them. Shares are counted and not enforced: each job takes the memory that it needs. A job
    that asks for no GPU sees what the caller sees. Cores are not counted.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}

    def submit(self, argv: Sequence[str], folder: Path, resources: Resources) -> str:
        """See `Launcher.submit`."""
        if shutil.which(argv[0]) is None:
            raise LaunchError(f"{argv[0]} cannot be started: there is no such program")
        if not folder.is_dir():
            raise LaunchError(f"{argv[0]} cannot be started: there is no folder {folder}")
        name = f"local-{secrets.token_hex(8)}"
        if resources.gpus and resources.gpus > (there := len(self._gpus)):
            many = f"a job asks for {resources.gpus:g} GPUs, more than the {there} there are"
            raise LaunchError(many, "`simsiam-zoo doctor` shows the devices.")
        self._jobs[name] = _Job(list(argv), folder, resources.cpus, resources.gpus)
        self._update()
        return name

    def poll(self, job: str) -> int | None:
        """See `Launcher.poll`."""
        return self._find(job).exit_code

    def cancel(self, job: str) -> None:
        """See `Launcher.cancel`."""
        found = self._find(job)
        if found.asked or found.exit_code is not None:
            return
        found.asked = True
        if found.process is None:
            found.exit_code = -signal.SIGTERM
        else:
            found.process.terminate()

    @cached_property
    def _gpus(self) -> list[str]:
        """They are counted once one is asked for."""
        return visible_gpus()

    def _find(self, job: str) -> _Job:
        """The job as it is now."""
        if job not in self._jobs:
            raise LaunchError(f"launcher local has started no job {job!r}")
        self._update()
        return self._jobs[job]

    def _update(self) -> None:
        """Reap what has ended, and start what waits, in turn, as far as there are GPUs for it."""
        going = [job for job in self._jobs.values() if job.exit_code is None]
        for job in going:
            if job.process is not None and (code := job.process.poll()) is not None:
                job.exit_code = code
        turn = True  # a job that needs few GPUs does not overtake one that waits for many
        for job in going:
            if job.process is None and job.gpus == 0:
                self._start(job, {})
            elif job.process is None:
                held = self._free(job.gpus) if turn else None
                turn = held is not None
                if held is not None:
                    self._start(job, held)

    def _start(self, job: _Job, held: dict[str, float]) -> None:
        variables, job.held = thread_variables(job.cpus), held
        if held:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(held)
        try:
            with (job.folder / LOG).open("ab") as log:
                job.process = subprocess.Popen(
                    die_with_parent(job.argv),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=os.environ | variables,
                    process_group=0,
                )
        except OSError as error:  # it ends as a shell's command does that cannot be started
            job.exit_code = 126
            with suppress(OSError), (job.folder / LOG).open("a") as log_text:
                log_text.write(f"{job.argv[0]} cannot be started: {error.strerror}\n")

    def _free(self, asked: float) -> dict[str, float] | None:
        """GPU → share of it, the emptiest first; None where there is no room."""
        share, number = min(asked, 1.0), math.ceil(asked)
        room = dict.fromkeys(self._gpus, 1.0)
        for job in self._jobs.values():
            for gpu, part in job.held.items() if job.exit_code is None else ():
                room[gpu] -= part
        free = sorted(room, key=room.__getitem__, reverse=True)[:number]
        enough = all(room[gpu] + _ROUNDING >= share for gpu in free)
        return dict.fromkeys(free, share) if enough else None


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES spells them."""
    import torch

    count = torch.cuda.device_count()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return [str(number) for number in range(count)]
    return [name.strip() for name in listed.split(",")][:count]
