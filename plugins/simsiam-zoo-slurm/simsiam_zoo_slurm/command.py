"""A command in the job that Slurm started for it. submitit calls `run` there."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from simsiam_zoo.plugin import LOG, die_with_parent

_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
"""Slurm's word for the end: preemption, and the time limit some minutes ahead."""


def run(
    argv: Sequence[str],
    folder: str,
    cwd: str,
    variables: Mapping[str, str],
    stop: str,
    grace: float,
    every: float,
) -> int:
    """Run the command to its end, and pass on the request to stop, once.

    Args:
        argv: the program and its arguments.
        folder: its output is appended to the log there.
        cwd: its working directory.
        variables: what its environment has besides that of the job.
        stop: a file whose presence asks to stop. Not `scancel`: depending on the cluster it signals
            this process or the command as well, and a run that gets two signals does not save.
        grace: seconds from the request to stop to the kill.
        every: seconds between two looks for that file, and for signals.

    Returns:
        The exit code; -N where signal N killed it.

    Raises:
        OSError: it cannot be started on this node.
    """
    signals: list[int] = []
    for number in _SIGNALS:  # instead of submitit's own handlers, which would queue the job anew
        signal.signal(number, lambda number, frame: signals.append(number))
    if Path(stop).exists():
        return -signal.SIGTERM
    with (Path(folder) / LOG).open("ab") as log:
        process = subprocess.Popen(
            die_with_parent(argv),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=os.environ | variables,
            process_group=0,
        )
    asked_at: float | None = None
    while True:
        try:
            return process.wait(every)
        except subprocess.TimeoutExpired:
            if asked_at is None and (signals or Path(stop).exists()):
                asked_at = time.monotonic()
                process.terminate()
            if asked_at is not None and time.monotonic() - asked_at > grace:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
