"""Getting one file from elsewhere: resumed, checked, tried again a bounded number of times."""

from __future__ import annotations

import hashlib
import io
import math
import os
import random
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from simsiam_zoo.data.remote.stores import (
    Answer,
    Missing,
    StartOver,
    Unavailable,
    open_url,
    stored_file,
)
from simsiam_zoo.data.remote.urls import redacted
from simsiam_zoo.errors import DataError

ATTEMPTS = 8
"""Tries in all; with the waits between them about a minute."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds; doubled from try to try

_T = TypeVar("_T")


def ask_for(url: str) -> tuple[int, str]:
    """Size in bytes and version of a remote file. Raises DataError where they cannot be had."""
    return _tried(url, lambda: stored_file(url))


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


def download(url: str, part: Path, size: int, sha256: str | None, version: str = "") -> None:
    """Bring the file behind `url` to `part`, where an earlier try may have left its beginning.

    What is there already is kept if the server's strong ETag vouches that it is of the same
    version, or if the checksum of the whole will tell.

    Args:
        url: allowed by `urls.check_url`.
        part: an existing file; beside it `<name>.etag` is kept.
        size: the file's size in bytes.
        sha256: of the whole file, where it is known.
        version: else what the server called its version when the run began.

    Raises:
        DataError: it cannot be had, or is not what it should be.
    """

    def go_on() -> None:
        if part.stat().st_size != size:
            _go_on(url, part, size, sha256 is not None, version)
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


def _go_on(url: str, part: Path, size: int, has_checksum: bool, version: str) -> None:
    have, etag = part.stat().st_size, _kept_etag(part)
    if have > size or (etag is None and not has_checksum):
        have = 0
    answer = open_url(url, have, etag if have else None)
    try:
        if answer.total is not None and answer.total != size:
            raise Unavailable(f"it has {answer.total} bytes there, not {size}")
        if version and answer.version != version:
            raise DataError(
                f"{redacted(url)} is not what it was when it was first asked for",
                "Start again: a run cannot mix two versions of its data.",
            )
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


def _tried(url: str, action: Callable[[], _T]) -> _T:
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


class RemoteFile(io.RawIOBase):
    """A remote file read from front to back; where the connection breaks, it goes on there."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url, self._at, self._tries = url, 0, 0
        self._answer: Answer | None = None
        self._etag: str | None = None
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Let the connection go."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None
        super().close()

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; none at the end. Raises DataError where they cannot be had."""
        while not self._ready:
            try:
                block = self._next_block()
            except Unavailable as error:
                self._again(error)
                continue
            if not block:
                return b""
            self._ready = memoryview(block)
        out = self._ready if size < 0 else self._ready[:size]
        self._ready = self._ready[len(out) :]
        return bytes(out)

    def _next_block(self) -> bytes:
        if self._answer is None:
            answer = open_url(self._url, self._at, self._etag)
            self._answer = answer
            if self._at and (answer.start != self._at or answer.etag != self._etag):
                raise DataError(f"{redacted(self._url)} changed, or cannot be gone on with")
            self._etag = answer.etag
        block = next(self._answer.blocks, b"")
        self._at += len(block)
        if not block and self._answer.total not in (None, self._at):
            raise Unavailable(f"the connection ended after {self._at} bytes")
        return block

    def _again(self, error: Unavailable) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None
        self._tries += 1
        if self._tries >= ATTEMPTS:
            raise DataError(
                f"{redacted(self._url)} cannot be had: {error.reason} (tried {self._tries} times)"
            ) from None
        wait_before(self._tries, error.wait)
