"""What the tests of the Ray launcher share: commands, and waiting for them."""

from __future__ import annotations

import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

# Before Ray is imported. Nothing leaves the machine, and nothing is written to the user's home.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

STORE = 80 * 2**20

# Says which signals come, and stops a moment after the first one, as a run that saves.
SAVING = """
import signal, sys, time
got = []
signal.signal(signal.SIGTERM, lambda number, frame: got.append(signal.Signals(number).name))
print("ready", flush=True)
end = time.monotonic() + 30
while time.monotonic() < end and not got:
    time.sleep(0.01)
time.sleep(0.3)
print(*got, flush=True)
sys.exit(75)
"""


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", script, *arguments]


def ended(launcher: Any, job: str, within: float = 60.0) -> int:
    end = time.monotonic() + within
    while time.monotonic() < end:
        code: int | None = launcher.poll(job)
        if code is not None:
            return code
        time.sleep(0.01)
    raise AssertionError(f"{job} has not ended in {within:g} s")


def log_of(folder: Path) -> str:
    return (folder / "log.txt").read_text() if (folder / "log.txt").exists() else ""


def said(folder: Path, text: str, within: float = 60.0) -> str:
    """The log, once it holds `text`."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if text in log_of(folder):
            return log_of(folder)
        time.sleep(0.01)
    raise AssertionError(f"{text!r} is not in the log: {log_of(folder)!r}")
