"""One shard read from front to back, from disk or elsewhere: as a stream, without an index.

Samples are put together by webdataset's own pipeline, of which only the parts are used that open
nothing and decode nothing: its URL openers run shells, and its decoders unpickle. What flows into
it has been checked member by member (`CheckedTar`), by the rules of `tar.py`.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import closing
from typing import BinaryIO, NamedTuple

from simsiam_zoo.data.remote.transfer import ATTEMPTS, Answer, Unavailable, open_url, wait_before
from simsiam_zoo.data.remote.urls import redacted
from simsiam_zoo.data.sources import is_remote
from simsiam_zoo.data.tar import BLOCK, check_extension, check_header, refuse_compressed
from simsiam_zoo.errors import DataError

MAX_MEMBER_BYTES = 1 << 26
"""Largest member that is taken into memory: 64 MiB."""

_IMAGES = ("jpg", "jpeg", "png", "webp")


class StreamedSample(NamedTuple):
    """One sample: its shard and key as errors call it, and the encoded image."""

    name: str
    image: bytes


def read_stream(source: str) -> Iterator[StreamedSample]:
    """The samples of one shard that have an image, from its front to its end.

    Raises:
        DataError: it cannot be had or is damaged.
        InputError: it is compressed.
    """
    from webdataset.tariterators import group_by_keys, tar_file_expander

    shown = shown_source(source)
    with closing(_open(source)) as raw:
        # One pipeline per shard: no sample can mix members of two.
        tar = CheckedTar(raw, shown)
        try:
            for sample in group_by_keys(tar_file_expander([{"url": shown, "stream": tar}])):
                image = next((sample[form] for form in _IMAGES if form in sample), None)
                if image is not None:
                    key = ascii(sample["__key__"])[1:-1]
                    yield StreamedSample(f"{shown}: {key}", image)
        except (tarfile.TarError, ValueError) as error:
            words = str(error.args[0]) if error.args else type(error).__name__
            raise DataError(f"{shown} is damaged: {ascii(words[:200])[1:-1]}") from None


class CheckedTar(io.RawIOBase):
    """A tar as it comes in: what `tar.members` would refuse is refused before it is passed on.

    Args:
        raw: the archive.
        where: what errors call it.
    """

    def __init__(self, raw: BinaryIO, where: str) -> None:
        super().__init__()
        self._raw, self._where = raw, where
        self._ready = bytearray()
        self._at = 0
        self._content = 0  # bytes of the current member that are still to come
        self._ended = False

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next `size` checked bytes; fewer at the end. Raises DataError, InputError."""
        while not self._ended and (size < 0 or len(self._ready) < size):
            self._advance()
        end = len(self._ready) if size < 0 else size
        out = bytes(self._ready[:end])
        del self._ready[:end]
        return out

    def _advance(self) -> None:
        if self._content:
            block = self._exactly(min(self._content, 1 << 16))
            self._content -= len(block)
            self._ready += block
            return
        at, header = self._at, self._exactly(BLOCK)
        self._ready += header
        if not at:
            refuse_compressed(header[:6], self._where)
        if header.count(0) == BLOCK:
            self._ready += bytes(BLOCK)
            self._ended = True
            return
        try:
            size, extends = _strictly(header)
            padded = -(-size // BLOCK) * BLOCK
            if not extends:
                self._content = padded
                return
            content = self._exactly(padded)
            check_extension(header[156:157], content[:size])
            self._ready += content
        except ValueError as error:
            where = f"{self._where}: the member at offset {at}"
            raise DataError(f"{where} is refused: {error}") from None

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            block = self._raw.read(size - len(parts))
            if not block:
                raise DataError(f"{self._where} is cut off: the archive has no end")
            parts += block
        self._at += size
        return bytes(parts)


def _strictly(header: bytes) -> tuple[int, bool]:
    """The size of what follows a header, and whether it extends the next one. Raises ValueError.

    Beyond `tar.check_header`: what Python's tarfile would take for another size than we do.
    """
    kind, size = check_header(header)
    name = header[:100].partition(b"\0")[0]
    if header[124] == 0 or (size and (kind == b"5" or name.endswith(b"/"))):
        raise ValueError("its size is ambiguous")
    if header.startswith(b"\x5d\0\0\x80"):
        raise ValueError("it looks like a compressed archive")
    if size > MAX_MEMBER_BYTES:
        raise ValueError(f"{size} bytes are too many for one member")
    return size, kind in (b"x", b"g", b"L")


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


def _open(source: str) -> BinaryIO:
    if is_remote(source):
        return RemoteFile(source)  # type: ignore[return-value]
    try:
        return open(source, "rb")
    except OSError as error:
        raise DataError(f"the shard {source} cannot be read: {error.strerror}") from None


def shown_source(source: str) -> str:
    """What errors call a shard."""
    return redacted(source) if is_remote(source) else os.fspath(source)
