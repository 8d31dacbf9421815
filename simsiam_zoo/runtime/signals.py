"""Stopping on request: the first signal asks, the second one insists."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]

_ECHO_SECONDS = 5.0
"""Under torchrun a Ctrl-C comes twice, from the terminal and from torchrun: one request."""


class StopRequest:
    """Listens for SIGINT, SIGTERM and SIGUSR1 while it is entered.

    The first signal sets `requested`, for the loop to save and leave; a second one ends the
    process at once. Outside the main thread, where Python forbids handlers, it never asks.
    """

    def __init__(self) -> None:
        self.requested = False
        self._asked = 0.0
        self._before: dict[int, Any] = {}
        self._interrupts = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Inside, the first signal too raises KeyboardInterrupt, as one that came before does."""
        self._interrupts = True
        try:
            if self.requested:
                raise KeyboardInterrupt
            yield
        finally:
            self._interrupts = False

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._asked = time.monotonic()
        for one in self._before:
            signal.signal(one, self._insist)
        if self._interrupts:
            raise KeyboardInterrupt

    def _insist(self, number: int, frame: FrameType | None) -> None:
        echo = "TORCHELASTIC_RUN_ID" in os.environ and number != signal.SIGUSR1
        if echo and time.monotonic() - self._asked < _ECHO_SECONDS:
            return
        raise KeyboardInterrupt
