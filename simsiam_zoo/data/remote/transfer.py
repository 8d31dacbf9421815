"""Getting one file from elsewhere: resumed, checked, tried again a bounded number of times.

What cannot be had is a DataError.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from simsiam_zoo.data.remote.stores import Missing, StartOver, Unavailable, open_url
from simsiam_zoo.data.remote.urls import redacted
from simsiam_zoo.errors import DataError
from simsiam_zoo.runtime.folders import file_sha256
from simsiam_zoo.runtime.progress import tell

ATTEMPTS = 8
"""Tries in all; with the waits between them about a minute."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds; doubled from try to try
TOLD_SECONDS = 30.0
"""Least time between two lines on what is tried again: many shards may fail at a time."""

_told_at = -TOLD_SECONDS

_T = TypeVar("_T")


def ask_for(url: str) -> tuple[int, str]:
    """Size in bytes of a remote file, and what its server calls its version, "" for nothing."""

    def ask() -> tuple[int, str]:
        try:  # one byte is asked for: not every server answers HEAD
            with closing(open_url(url, last=0)) as answer:
                if answer.total is None:
                    raise Unavailable("the server does not tell its size")
                return answer.total, answer.version
        except StartOver:  # there is not one
            return 0, ""

    return _tried(url, ask)


def read_small(url: str, limit: int) -> bytes | None:
    """The whole of a remote file of at most `limit` bytes; None where there is none."""

    def read() -> bytes | None:
        content = bytearray()
        try:
            with closing(open_url(url)) as answer:
                for block in answer.blocks:
                    content += block
                    if len(content) > limit:
                        raise DataError(f"{redacted(url)} is absurdly large (over {limit:,} bytes)")
        except Missing:
            return None
        _check_end(len(content), answer.total)
        return bytes(content)

    return _tried(url, read)


def download(url: str, part: Path, size: int, sha256: str | None, version: str = "") -> None:
    """Bring the file behind `url` to `part`, where an earlier try may have left its beginning.

    What is there already is kept if the checksum of the whole will tell. What a try of this call
    left is kept too if the server's strong ETag vouches that it is of the same version. Size and
    checksum are of the whole file; `version` is what the server called it when the run began.
    """
    etag: str | None = None

    def go_on() -> None:
        nonlocal etag
        have = part.stat().st_size
        if have > size or (etag is None and sha256 is None):
            have = 0
        with closing(open_url(url, have, etag if have else None)) as answer:
            if answer.total not in (None, size):
                raise Unavailable(f"it has {answer.total} bytes there, not {size}")
            if version and answer.version != version:
                raise DataError(
                    f"{redacted(url)} is not what it was when it was first asked for",
                    "Start again: a run cannot mix two versions of its data.",
                )
            if answer.start and etag and answer.etag not in (None, etag):
                raise StartOver("it changed there in the middle of its download")
            have, etag = answer.start, answer.etag or etag
            with part.open("r+b") as file:
                file.truncate(have)
                file.seek(have)
                for block in answer.blocks:
                    have += len(block)
                    if have > size:
                        raise StartOver(f"it has more than {size} bytes there")
                    file.write(block)
                    file.flush()  # what a killed process leaves is gone on with
        _check_end(have, size)

    def once() -> None:
        try:
            if sha256 is None or part.stat().st_size != size:
                go_on()
            if sha256 and file_sha256(part) != sha256:
                raise StartOver("its sha256 is not the one that its manifest states")
        except StartOver:
            os.truncate(part, 0)
            raise

    try:
        _tried(url, once)
    except OSError as error:
        raise DataError(
            f"{redacted(url)} cannot be written to {part.parent}: {error.strerror}",
            "Free some space, or set SIMSIAM_ZOO_CACHE to a folder on another disk.",
        ) from None


def _check_end(have: int, total: int | None) -> None:
    if total is not None and have != total:
        raise Unavailable(f"the connection ended after {have} of {total} bytes")


def _tried(url: str, action: Callable[[], _T]) -> _T:
    """`action`, tried again while it raises Unavailable, with longer and longer waits."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return action()
        except Unavailable as error:
            _wait_or_give_up(url, attempt, error)


def _wait_or_give_up(url: str, tries: int, error: Unavailable) -> None:
    """Sleep before the next try; as long as the server asks, where that is longer."""
    if tries >= ATTEMPTS:
        raise DataError(
            f"{redacted(url)} cannot be had: {error.reason} (tried {tries} times)",
            "Look whether it can be reached, and say the same again, or --resume RUN where the run"
            " has begun: what was read is kept.",
        ) from None
    if tries > 1:
        _tell(f"{redacted(url)}: {error.reason}; it is tried again, {ATTEMPTS} times in all")
    seconds = FIRST_WAIT * 2.0 ** (tries - 1)
    if error.wait > seconds:  # it may be NaN
        seconds = error.wait
    # A little random, so that many processes do not come back all at once.
    time.sleep(min(seconds, LONGEST_WAIT) * random.uniform(0.8, 1.2))


def _tell(text: str) -> None:
    global _told_at
    now = time.monotonic()
    # A worker process does not know whether the main one is to be silent.
    if now - _told_at >= TOLD_SECONDS and multiprocessing.parent_process() is None:
        _told_at = now
        tell(text)


def read_on(url: str) -> Generator[bytes]:
    """A remote file's bytes from front to back; where the connection breaks, it goes on there."""
    at, tries, etag = 0, 0, None
    while True:
        try:
            with closing(open_url(url, at, etag)) as answer:
                if at and (answer.start != at or answer.etag != etag):
                    raise DataError(f"{redacted(url)} changed, or cannot be gone on with")
                etag = answer.etag
                for block in answer.blocks:
                    at += len(block)
                    yield block
            _check_end(at, answer.total)
            return
        except Unavailable as error:
            tries += 1
            _wait_or_give_up(url, tries, error)
