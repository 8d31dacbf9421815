"""A command on the node that Ray chose for it. This runs in Ray's worker."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from simsiam_zoo.plugin import LOG, die_with_parent

_DEVICES = "_VISIBLE_DEVICES"

_DYING = 2.0
"""Seconds in which a Ray worker that has killed its children is gone itself."""


class Command:
    """The body of the actor that holds a job's resources while its command runs.

    An actor rather than a task: it can be told to stop while it runs, and Ray never starts it a
    second time on its own. Its methods run side by side, in two threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = False

    def ready(self) -> None:
        """Returns when the actor has its resources."""

    def run(
        self,
        argv: Sequence[str],
        folder: str,
        cwd: str,
        environment: Mapping[str, str],
        gpus: float,
    ) -> int:
        """Run the command to its end.

        Args:
            argv: the program and its arguments.
            folder: its output is appended to the log there.
            cwd: its working directory.
            environment: of the caller; the GPUs that it names are replaced by the job's own.
            gpus: how many the job was given.

        Returns:
            The exit code; -N where signal N killed it.

        Raises:
            OSError: it cannot be started on this node.
        """
        variables = {key: value for key, value in environment.items() if _DEVICES not in key}
        if gpus:
            own = {key: value for key, value in os.environ.items() if key.endswith(_DEVICES)}
            variables |= own
        else:
            variables["CUDA_VISIBLE_DEVICES"] = ""  # they are other jobs'
        with self._lock:
            if self._asked:
                return -signal.SIGTERM
            with (Path(folder) / LOG).open("ab") as log:
                # Tethered: a worker that is killed, as when its node goes, leaves no orphan.
                self._process = subprocess.Popen(
                    die_with_parent(argv),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env=variables,
                    process_group=0,
                )
        code = self._process.wait()
        if code == -signal.SIGKILL and not self._asked:
            # A worker that loses its node kills its children first and itself next. What it would
            # tell in between hides the loss of the node, which the caller hears from Ray otherwise.
            time.sleep(_DYING)
        return code

    def stop(self, grace: float) -> None:
        """SIGTERM to the command; SIGKILL to all its processes if it still runs `grace` s later."""
        with self._lock:
            self._asked = True
            process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
