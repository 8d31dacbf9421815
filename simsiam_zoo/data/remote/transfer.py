"""Getting one file from elsewhere: resumed, checked, tried again a bounded number of times."""

from __future__ import annotations

import hashlib
import math
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from simsiam_zoo.data.remote.urls import redacted
from simsiam_zoo.errors import DataError

ATTEMPTS = 8
"""Tries in all; with the waits between them about a minute."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds; doubled from try to try
BLOCK = 1 << 20
"""Most bytes held at once of what comes in."""

T = TypeVar("T")


class Unavailable(Exception):
    """Not to be had this time; worth another try.

    Args:
        reason: in words, without any URL.
        wait: seconds that the server asks to wait, or NaN.
    """

    def __init__(self, reason: str, wait: float = math.nan) -> None:
        super().__init__(reason)
        self.reason, self.wait = reason, wait


class Missing(Unavailable):
    """There is no such file."""


class StartOver(Unavailable):
    """What was kept of an earlier try is not a part of this file."""


@dataclass
class Answer:
    """What a store answers: bytes of a file from `start` on.

    Attributes:
        start: where `blocks` begin.
        total: size of the whole file, None where it is not told.
        etag: names this version of the file, None where nothing does.
        blocks: the bytes; may raise Unavailable.
        close: lets the connection go.
    """

    start: int
    total: int | None
    etag: str | None
    blocks: Iterator[bytes]
    close: Callable[[], None]


def open_url(url: str, start: int = 0, etag: str | None = None) -> Answer:
    """Ask for `url` from `start` on: over http(s) by `web`, from object stores by fsspec.

    Raises:
        Unavailable, Missing, StartOver, DataError: as `web.open_web` says.
    """
    if url.startswith(("http://", "https://")):
        from simsiam_zoo.data.remote.web import open_web

        return open_web(url, start, etag)
    from simsiam_zoo.data.remote.stores import open_object

    return open_object(url, start, etag)


def size_of(url: str) -> int:
    """The size of a remote file in bytes. Raises DataError where it cannot be had."""

    def ask() -> int:
        if url.startswith(("http://", "https://")):
            from simsiam_zoo.data.remote.web import web_size

            return web_size(url)
        from simsiam_zoo.data.remote.stores import object_size

        return object_size(url)

    return _tried(url, ask)


def read_small(url: str, limit: int) -> bytes | None:
    """The whole of a small remote file; None where there is none.

    Raises:
        DataError: it cannot be had, or has more than `limit` bytes.
    """

    def read() -> bytes | None:
        try:
            answer = open_url(url)
        except Missing:
            return None
        try:
            content = bytearray()
            for block in answer.blocks:
                content += block
                if len(content) > limit:
                    raise DataError(f"{redacted(url)} is absurdly large (over {limit:,} bytes)")
        finally:
            answer.close()
        if answer.total is not None and len(content) != answer.total:
            raise Unavailable(f"the connection ended after {len(content)} of {answer.total} bytes")
        return bytes(content)

    return _tried(url, read)


def download(url: str, part: Path, size: int, sha256: str | None) -> None:
    """Bring the file behind `url` to `part`, where an earlier try may have left its beginning.

    What is there already is kept if the server's strong ETag vouches that it is of the same
    version, or if the checksum of the whole will tell.

    Args:
        url: allowed by `urls.check_url`.
        part: an existing file; beside it `<name>.etag` is kept.
        size: the file's size in bytes.
        sha256: of the whole file, where it is known.

    Raises:
        DataError: it cannot be had, or is not what it should be.
    """

    def go_on() -> None:
        if part.stat().st_size != size:
            _go_on(url, part, size, sha256 is not None)
        if sha256 is not None:
            with part.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    raise StartOver("its sha256 is not the one that its manifest states")

    def once() -> None:
        try:
            go_on()
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
    with suppress(OSError):
        etag_path(part).unlink()


def wait_before(retry: int, asked: float = math.nan) -> None:
    """Sleep before the n-th retry; as long as the server `asked`, where that is longer."""
    seconds = FIRST_WAIT * 2.0 ** (retry - 1)
    if asked > seconds:
        seconds = asked
    # A little random, so that many processes do not come back all at once.
    time.sleep(min(seconds, LONGEST_WAIT) * random.uniform(0.8, 1.2))


def etag_path(part: Path) -> Path:
    """Where the ETag of a part is kept."""
    return part.with_suffix(".etag")


def _go_on(url: str, part: Path, size: int, has_checksum: bool) -> None:
    have, etag = part.stat().st_size, _kept_etag(part)
    if have > size or (etag is None and not has_checksum):
        have = 0
    answer = open_url(url, have, etag if have else None)
    try:
        if answer.total is not None and answer.total != size:
            raise Unavailable(f"it has {answer.total} bytes there, not {size}")
        if answer.start and etag is not None and answer.etag not in (None, etag):
            raise StartOver("it changed there in the middle of its download")
        have = answer.start
        if not have:
            etag_path(part).write_text(answer.etag or "")
        with part.open("r+b") as file:
            file.truncate(have)
            file.seek(have)
            for block in answer.blocks:
                have += len(block)
                if have > size:
                    raise StartOver(f"it has more than {size} bytes there")
                file.write(block)
                file.flush()  # what a killed process leaves is gone on with
    finally:
        answer.close()
    if have < size:
        raise Unavailable(f"the connection ended after {have} of {size} bytes")


def _kept_etag(part: Path) -> str | None:
    try:
        text = etag_path(part).read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return text if re.fullmatch(r'"[\x21\x23-\x7e]{0,200}"', text) else None


def _tried(url: str, action: Callable[[], T]) -> T:
    """`action`, tried again while it raises Unavailable, with longer and longer waits."""
    attempts, reason = ATTEMPTS, ""
    for attempt in range(1, attempts + 1):
        try:
            return action()
        except Unavailable as error:
            reason = error.reason
            if attempt == attempts:
                break
            wait_before(attempt, error.wait)
    raise DataError(
        f"{redacted(url)} cannot be had: {reason} (tried {attempts} times)",
        "Look whether it can be reached, then go on with --resume: what was read is kept.",
    )
