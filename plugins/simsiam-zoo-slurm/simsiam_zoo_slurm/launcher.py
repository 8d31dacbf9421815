"""The launcher `slurm`: each command a job of Slurm, submitted by submitit."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from simsiam_zoo.plugin import (
    LOG,
    InputError,
    LaunchError,
    PluginError,
    Resources,
    thread_variables,
)
from simsiam_zoo_slurm.command import run

_WARNING_SECONDS = 180
"""How long before its time limit a run is asked to stop."""


@dataclass
class _Job:
    job: Any
    folder: Path
    stop: Path
    asked: bool = False
    lost_at: float | None = None
    exit_code: int | None = None


class SlurmLauncher:
    """Commands as jobs of Slurm.

    The nodes need this Python environment, the working directory and the study's folder under the
    paths that they have here. sbatch passes the environment on, unless the site or
    SBATCH_EXPORT says otherwise. Jobs outlive the process that submitted them.

    Args:
        partition, account: of Slurm; None is the site's default.
        hours: the time limit; a run is asked to stop three minutes before.
        memory: of a run, in GB; None is the site's default.
        options: other options of sbatch, as `KEY=VALUE` separated by spaces; `KEY` alone is a flag.
        grace: seconds from the request to stop to the kill.
        cluster: `slurm`, or `local` for processes on this machine by submitit's local executor,
            which counts no resources: to try out what will run on the cluster.

    Raises:
        PluginError: there is no Slurm here.
        InputError: `options` cannot be read.
    """

    def __init__(
        self,
        *,
        partition: str | None,
        account: str | None,
        hours: float,
        memory: float | None,
        options: str,
        grace: float,
        cluster: str,
    ) -> None:
        self._is_slurm = cluster == "slurm"
        missing = [name for name in ("sbatch", "srun", "scancel") if shutil.which(name) is None]
        if self._is_slurm and missing:
            raise PluginError(
                f"launcher slurm cannot be used: there is no {missing[0]} here",
                "Start the study on a login node of the cluster, or try it out with"
                " slurm:cluster=local.",
            )
        self._cluster = cluster
        self._grace = grace
        # A file system that the nodes share shows a result some seconds late.
        self._patience = 30.0 if self._is_slurm else 0.0
        self._jobs: dict[str, _Job] = {}
        self._parameters: dict[str, Any] = {
            "timeout_min": max(3, round(60 * hours)),
            "nodes": 1,
            "tasks_per_node": 1,
            "stderr_to_stdout": True,
        }
        if self._is_slurm:
            self._parameters |= _sbatch_parameters(partition, account, options)
            self._parameters |= {"mem_gb": memory} if memory is not None else {}

    def submit(self, argv: Sequence[str], folder: Path, resources: Resources) -> str:
        """See `simsiam_zoo.studies.launcher.Launcher.submit`."""
        if resources.gpus != int(resources.gpus):
            raise LaunchError(
                f"Slurm hands out whole GPUs, not {resources.gpus:g} of them",
                "Ask for 1, or share one on a machine of yours: --launcher local.",
            )
        token = secrets.token_hex(4)
        folder = folder.absolute()
        stop = folder / f".stop-{token}"
        try:
            executor = submitit.AutoExecutor(folder=folder / "slurm", cluster=self._cluster)
            executor.update_parameters(**self._parameters, **self._of_job(folder, resources))
            with _deaf_to_ctrl_c():
                job = executor.submit(
                    run,
                    list(argv),
                    str(folder),
                    os.getcwd(),
                    thread_variables(resources.cpus),
                    str(stop),
                    self._grace,
                    every=1.0 if self._is_slurm else 0.1,
                )
        except (OSError, submitit.core.utils.FailedJobError, subprocess.SubprocessError) as error:
            reason = " ".join(str(error).split())
            raise LaunchError(f"{argv[0]} cannot be submitted: {reason}") from error
        name = f"slurm-{job.job_id}-{token}"
        self._jobs[name] = _Job(job, folder, stop)
        return name

    def poll(self, job: str) -> int | None:
        """See `Launcher.poll`; -9 where Slurm ended the job without its saying so."""
        found = self._find(job)
        if found.exit_code is None:
            found.exit_code = self._exit_code(found)
            if found.exit_code is not None:
                found.stop.unlink(missing_ok=True)
        return found.exit_code

    def cancel(self, job: str) -> None:
        """See `Launcher.cancel`; a command that still runs after the time of grace is killed."""
        found = self._find(job)
        if found.asked or self.poll(job) is not None:
            return
        found.asked = True
        found.stop.touch()
        if self._is_slurm:  # only if it waits in the queue
            command = ["scancel", "--state=PENDING", found.job.job_id]
            subprocess.run(command, check=False, capture_output=True)

    def _find(self, job: str) -> _Job:
        try:
            return self._jobs[job]
        except KeyError:
            raise LaunchError(f"launcher slurm has started no job {job!r}") from None

    def _of_job(self, folder: Path, resources: Resources) -> dict[str, Any]:
        given: dict[str, Any] = {
            "name": "-".join(["zoo", *folder.parts[-2:]]),
            "cpus_per_task": resources.cpus,
        }
        if resources.gpus:
            given["gpus_per_node"] = int(resources.gpus)
        if self._is_slurm:  # since 22.05 srun does not take them from sbatch
            given["slurm_srun_args"] = [f"--cpus-per-task={resources.cpus}"]
        return given

    def _exit_code(self, job: _Job) -> int | None:
        ended = job.job.done()  # before the look for its result, which it leaves first
        if job.job.paths.result_pickle.exists():
            try:
                return int(job.job.result())
            except submitit.core.utils.FailedJobError as error:
                _note(job.folder, f"Slurm's job could not start the command: {error}")
                return 126
        return self._lost(job) if ended else None

    def _lost(self, job: _Job) -> int | None:
        """The exit code of a job that has ended without a result; None while one may yet come."""
        now = time.monotonic()
        job.lost_at = job.lost_at or now
        if now - job.lost_at < self._patience:
            return None
        if job.asked:
            return -signal.SIGTERM
        _note(job.folder, f"Slurm ended job {job.job.job_id} (state: {job.job.state})")
        return -signal.SIGKILL


def _sbatch_parameters(partition: str | None, account: str | None, options: str) -> dict[str, Any]:
    # Not queued anew by Slurm: a run that is begun again by anyone but the study would be unseen.
    additional: dict[str, Any] = {"no-requeue": True}
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise InputError(f"launcher slurm: options {options!r} cannot be read: {error}") from None
    for word in words:
        key, equals, value = word.lstrip("-").partition("=")
        additional[key] = value if equals else True
    given = {
        "slurm_partition": partition,
        "slurm_account": account,
        "slurm_signal_delay_s": _WARNING_SECONDS,
        "slurm_additional_parameters": additional,
    }
    return {key: value for key, value in given.items() if value is not None}


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """What is started in here does not hear Ctrl-C in the terminal: the caller passes it on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _note(folder: Path, text: str) -> None:
    with suppress(OSError), (folder / LOG).open("a") as log:
        log.write(f"{text}\n")
