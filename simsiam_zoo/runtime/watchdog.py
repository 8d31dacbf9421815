"""The end of a process that cannot end itself, because it waits for one that is no more."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from simsiam_zoo.errors import PeerError, StoppedError
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.signals import StopRequest

_LOOKS_EVERY = 0.5  # seconds

PATIENCE = 10.0
"""How many times the grace a save may take: it waits for the others, and for the disk."""


class Watchdog:
    """Ends this process if it is stuck in a collective. A context manager; idle where it is alone.

    It starts to count when a stop was requested, or when another process left word that it failed;
    a step that is done, `patient` or `paused` start the count anew.

    Args:
        stop: the request to look at.
        grace: seconds without a step, after which the process is ended.
        resume: what the message says about going on.
    """

    def __init__(self, stop: StopRequest, grace: float, resume: str) -> None:
        self._stop, self._grace, self._resume = stop, grace, resume
        self._beat = time.monotonic()
        self._paused, self._patience = False, 1.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        if distributed.is_distributed():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def beat(self) -> None:
        """A step is done."""
        self._beat = time.monotonic()

    @contextmanager
    def patient(self) -> Iterator[None]:
        """What takes longer than a step and waits for the others, as saving does."""
        self.beat()
        self._patience = PATIENCE
        try:
            yield
        finally:
            self.beat()
            self._patience = 1.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What may take any time, such as a look, and waits for nobody who could be gone."""
        self._paused = True
        try:
            yield
        finally:
            self.beat()
            self._paused = False

    def _watch(self) -> None:
        since: float | None = None
        while not self._over.wait(_LOOKS_EVERY):
            failure = distributed.peer_failure()
            if failure is None and not self._stop.heard():
                continue
            since = since or time.monotonic()
            grace = self._grace * self._patience
            if not self._paused and time.monotonic() - max(since, self._beat) > grace:
                self._end(failure)

    def _end(self, failure: PeerError | None) -> None:
        cause = (
            failure.what if failure else "a stop was requested, and the other processes are gone"
        )
        code = failure.exit_code if failure else StoppedError.exit_code
        print(
            f"Error: rank {distributed.rank()} is stuck: {cause}\n  {self._resume}",
            file=sys.stderr,
            flush=True,
        )
        os._exit(code)  # the main thread is in a collective, where no exception reaches it
