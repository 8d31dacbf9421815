"""The watchdog on a process that stands still; its end is played."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext

import pytest

from simsiam_zoo.runtime.signals import StopRequest
from simsiam_zoo.training import control as module
from simsiam_zoo.training.control import Watchdog

GRACE = 0.2


def ended_after(
    monkeypatch: pytest.MonkeyPatch, within: str, requested: bool = True
) -> float | None:
    """Seconds until the process would be ended that stands still for 15 graces; None: it is not."""
    ends: list[float] = []
    monkeypatch.setattr(module, "_CHECKS_EVERY", 0.01)
    monkeypatch.setattr(module.distributed, "is_distributed", lambda: True)
    monkeypatch.setattr(module.distributed, "peer_failure", lambda: None)
    monkeypatch.setattr(Watchdog, "_end", lambda self, failure: ends.append(time.monotonic()))
    stop = StopRequest()
    stop.requested = requested
    with Watchdog(stop, GRACE, "") as watchdog:
        began = time.monotonic()
        block: AbstractContextManager[None] = (
            getattr(watchdog, within)() if within else nullcontext()
        )
        with block:
            while not ends and time.monotonic() - began < 15 * GRACE:
                time.sleep(0.01)
    return ends[0] - began if ends else None


def test_it_ends_what_stands_still_once_a_stop_was_requested(monkeypatch) -> None:
    assert (ended_after(monkeypatch, "") or 0) > GRACE
    assert ended_after(monkeypatch, "", requested=False) is None


def test_a_save_has_more_time_and_yet_is_ended(monkeypatch) -> None:
    assert (ended_after(monkeypatch, "patient") or 0) > module.PATIENCE * GRACE


def test_a_look_has_all_the_time_it_wants(monkeypatch) -> None:
    assert ended_after(monkeypatch, "paused") is None
