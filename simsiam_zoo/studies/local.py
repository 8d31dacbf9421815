"""The launcher `local`: commands as child processes on this machine."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from simsiam_zoo.studies.launcher import LOG, LaunchError, Resources, thread_variables
from simsiam_zoo.studies.tether import tethered


@dataclass
class _Job:
    argv: list[str]
    folder: Path
    cpus: int
    gpus: int
    held: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    asked: bool = False
    exit_code: int | None = None

    @property
    def waits(self) -> bool:
        return self.process is None and self.exit_code is None


class LocalLauncher:
    """Each command in a process group of its own, so that Ctrl-C reaches the caller alone.

    The caller passes it on by `cancel`: from the terminal as well, a run would get two signals,
    and the second one keeps it from saving. When the caller dies, by SIGKILL too, Linux asks the
    commands to stop. Call `submit` from a thread that lives as long as the process (the main one):
    its death counts as the caller's.

    GPUs are handed out whole: a job sees only its own, and waits while others hold them. A job
    that asks for none sees what the caller sees. Cores are not counted: how many jobs are
    submitted at once is the caller's affair.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}
        self._gpus: list[str] | None = None  # all of them, once one was asked for
        self._free: list[str] = []

    def submit(self, argv: Sequence[str], folder: Path, resources: Resources) -> str:
        """See `Launcher.submit`."""
        if shutil.which(argv[0]) is None:
            raise LaunchError(f"{argv[0]} cannot be started: there is no such program")
        if not folder.is_dir():
            raise LaunchError(f"{argv[0]} cannot be started: there is no folder {folder}")
        job = _Job(list(argv), folder, resources.cpus, self._whole_gpus(resources.gpus))
        self._update()  # those that wait come first
        if self._has_room(job):
            self._start(job)
        name = f"local-{secrets.token_hex(8)}"
        self._jobs[name] = job
        return name

    def poll(self, job: str) -> int | None:
        """See `Launcher.poll`."""
        found = self._find(job)
        self._update()
        return found.exit_code

    def cancel(self, job: str) -> None:
        """See `Launcher.cancel`."""
        found = self._find(job)
        self._update()
        if found.asked or found.exit_code is not None:
            return
        found.asked = True
        if found.process is None:
            found.exit_code = -signal.SIGTERM
        else:
            found.process.terminate()

    def _find(self, job: str) -> _Job:
        try:
            return self._jobs[job]
        except KeyError:
            raise LaunchError(f"launcher local has started no job {job!r}") from None

    def _update(self) -> None:
        """Reap what has ended, and start what waited for its GPUs."""
        for job in self._jobs.values():
            if job.process is not None and job.exit_code is None:
                job.exit_code = job.process.poll()
                if job.exit_code is not None:
                    self._free += job.held
                    job.held = []
        for job in self._jobs.values():
            if not (job.waits and self._has_room(job)):
                continue
            try:
                self._start(job)
            except LaunchError as error:  # nobody asks about this one now: it ends as a shell's do
                job.exit_code = 126
                with suppress(OSError), (job.folder / LOG).open("a") as log:
                    log.write(f"{error}\n")

    def _has_room(self, job: _Job) -> bool:
        """Whether its GPUs are free, and no job that came earlier waits for some."""
        if job.gpus == 0:
            return True
        earlier = next((each for each in self._jobs.values() if each.waits and each.gpus), job)
        return job.gpus <= len(self._free) and earlier is job

    def _start(self, job: _Job) -> None:
        variables = thread_variables(job.cpus)
        held = self._free[: job.gpus]
        if held:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(held)
        try:
            with (job.folder / LOG).open("ab") as log:
                job.process = subprocess.Popen(
                    tethered(job.argv),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=os.environ | variables,
                    process_group=0,
                )
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise LaunchError(f"{job.argv[0]} cannot be started: {error.strerror}{where}") from None
        job.held, self._free = held, self._free[job.gpus :]

    def _whole_gpus(self, asked: float) -> int:
        if asked == 0:
            return 0
        if asked != int(asked):
            raise LaunchError(
                f"launcher local hands out whole GPUs, not {asked:g} of them",
                "Ask for none, and the jobs share what this process sees.",
            )
        if self._gpus is None:
            self._gpus = visible_gpus()
            self._free = list(self._gpus)
        if asked > len(self._gpus):
            there = len(self._gpus)
            raise LaunchError(f"a job asks for {asked:g} GPUs, more than the {there} there are")
        return int(asked)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES spells them."""
    import torch

    count = torch.cuda.device_count()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return [str(number) for number in range(count)]
    return [name.strip() for name in listed.split(",")][:count]
