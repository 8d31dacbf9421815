"""Parts of a measurement, each in a process of its own, and the files that they are told in."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LINES = 12  # of a log that are shown of a part that failed


def run_limited(
    command: Sequence[str], limit: float, log: Path, variables: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A command in its own process group, which ends with it or after `limit` seconds.

    Returns:
        `state` (done, failed with exit code N, out of time), `seconds`, `limit`, and `error`: the
        end of its log where it is not done.
    """
    began = time.monotonic()
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            start_new_session=True,
            env=environment | dict(variables or {}),
        )
        try:
            code = process.wait(timeout=limit)
            state = "done" if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            state = "out of time"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    told = log.read_text("utf-8", "replace").strip().splitlines()[-LINES:]
    seconds = time.monotonic() - began
    error = "" if state == "done" else "\n".join(told)
    return {"state": state, "seconds": seconds, "limit": limit, "error": error}


def write_pages(out: Path, name: str, results: Mapping[str, Any], page: str) -> None:
    """The JSON and the page, each whole."""
    for suffix, text in ((".json", json.dumps(results, indent=1) + "\n"), (".md", page)):
        write_whole(out / f"{name}{suffix}", text)


def write_whole(path: Path, text: str) -> None:
    """The file as it was, or as it is to be."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, "utf-8")
    os.replace(beside, path)


def now() -> str:
    """Date and time."""
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"


def versions(*packages: str) -> str:
    """What is installed."""
    return ", ".join(map(importlib.metadata.version, packages))


def commit() -> str:
    """Of the checkout; nothing where there is none."""
    git = ["git", "-C", str(ROOT)]
    found = told_by([*git, "rev-parse", "--short=12", "HEAD"])
    return found + (" with changes" if found and told_by([*git, "status", "--porcelain"]) else "")


def told_by(command: Sequence[str]) -> str:
    """What a program prints; nothing where it fails or is missing."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""
