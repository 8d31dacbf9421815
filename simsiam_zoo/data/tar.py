"""A tar archive, read as untrusted input: where its regular members lie, and nothing else.

Only plain, uncompressed members are accepted. Python's `tarfile` follows sizes from extended
headers, sparse maps and base-256 numbers; here each of those is an error that names the offset.
"""

from __future__ import annotations

import io
import os
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from simsiam_zoo.errors import DataError, InputError

TAR_BLOCK = 512
MAX_EXTENSION = 1 << 16  # bytes of one extended header: names, never contents
MAX_NAME = 1 << 12  # bytes; no file system has longer paths
MAX_PADDING = 10240 + 2 * TAR_BLOCK
"""Zeros behind a tar's last member: two blocks, and what fills a record of 20 blocks."""
_PIECE = 1 << 20

_REGULAR = (b"0", b"\0", b"7")
_EXTENSIONS = (b"x", b"g", b"L")
_OCTAL = re.compile(rb"[ \0]*([0-7]+)[ \0]*\Z")
_COMPRESSED = {
    b"\x1f\x8b": "gzip", b"\x1f\x9d": "compress", b"BZh": "bzip2", b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "zip",
}  # fmt: skip
_KINDS = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device",
          b"6": "a pipe", b"S": "a sparse file", b"K": "a link"}  # fmt: skip


class Member(NamedTuple):
    """A regular member of a tar."""

    name: bytes
    header: int  # offset of its 512-byte header; the content follows
    size: int  # of the content in bytes
    check: int  # CRC-32 of the header


def members(descriptor: int, where: str) -> Iterator[Member]:
    """The regular members of an open tar, and of tars that follow it in one file, in their order.

    Args:
        descriptor: an open file descriptor.
        where: what to call the archive in errors.

    Raises:
        DataError: the archive is damaged or holds something that no data shard should; the text
            names the offset.
        InputError: the archive is compressed.
    """
    total = os.fstat(descriptor).st_size
    refuse_compressed(os.pread(descriptor, 6, 0), where)
    at, long_name = 0, None
    while True:
        header = os.pread(descriptor, TAR_BLOCK, at)
        if len(header) < TAR_BLOCK:
            raise DataError(_without_end(where, at, header))
        if header.count(0) == TAR_BLOCK:
            if (follows := _end_of_zeros(descriptor, at, where)) is None:
                return
            at = follows
            continue
        try:
            kind, size = check_header(header)
            content = at + TAR_BLOCK
            if content + size > total:
                raise ValueError("its content is cut off")
            if kind in _EXTENSIONS:
                extension = os.pread(descriptor, size, content)
                name = check_extension(kind, extension)
                long_name = name if kind != b"g" else long_name
            elif kind in _REGULAR:
                name = long_name or _name(header)
                if len(name) > MAX_NAME:
                    raise ValueError(f"its name of {len(name)} bytes is absurd")
                if not name.endswith(b"/"):  # how old archives mark a folder
                    yield Member(name, at, size, zlib.crc32(header))
                long_name = None
            else:
                long_name = None
        except ValueError as error:
            raise DataError(_refusal(where, at, header, error)) from None
        at = content + -(-size // TAR_BLOCK) * TAR_BLOCK


def _end_of_zeros(descriptor: int, begin: int, where: str) -> int | None:
    """Where another archive begins after the zeros at `begin`; None if nothing follows them.

    Raises:
        DataError: there are too many zeros: members are missing.
    """
    at = begin
    while piece := os.pread(descriptor, _PIECE, at):
        zeros = len(piece) - len(piece.lstrip(b"\0"))
        at += zeros
        check_padding(at - begin, begin, where)
        if zeros < len(piece):
            return at // TAR_BLOCK * TAR_BLOCK
    return None


def check_padding(zeros: int, begin: int, where: str) -> None:
    """Refuse more zeros than end an archive: what should be there was never written.

    Raises:
        DataError: naming the offset where they begin.
    """
    if zeros > MAX_PADDING:
        raise DataError(
            f"{where} has only zeros for {zeros:,} bytes and more at offset {begin}: members are"
            " missing there",
            "Copy it again: a download that was not finished looks so. If a tar was written with"
            " a larger blocking factor, write it with the usual one (tar -b 20).",
        )


def _without_end(where: str, at: int, header: bytes) -> str:
    if not at and b"ustar" not in header:
        return f"{where} is no tar archive"
    return f"{where} is cut off at offset {at}: the archive has no end"


def _refusal(where: str, at: int, header: bytes, error: ValueError) -> str:
    if not at and header[257:262] != b"ustar":
        return f"{where} is no tar archive, or its first member is refused: {error}"
    return f"{where}: the member at offset {at} is refused: {error}"


def is_member(header: bytes, size: int) -> bool:
    """Whether a block is the header of a regular member of that size: as an index says it is."""
    stated = _OCTAL.match(header[124:136])
    return header[156:157] in _REGULAR and stated is not None and int(stated[1], 8) == size


def check_header(header: bytes) -> tuple[bytes, int]:
    """Type and size of a member that may be there. Raises ValueError for any other."""
    kind, size = header[156:157], _size(header)
    if kind in _EXTENSIONS:
        if size > MAX_EXTENSION:
            raise ValueError(f"its extended header of {size} bytes is absurd")
    elif kind not in _REGULAR and kind != b"5":
        raise ValueError(f"it is {_KINDS.get(kind, f'of the unknown type {kind!r}')}")
    return kind, size


def check_extension(kind: bytes, content: bytes) -> bytes | None:
    """The name that an extended header gives to the next member, if any. Raises ValueError."""
    return content.rstrip(b"\0") if kind == b"L" else _pax_path(content)


def refuse_compressed(magic: bytes, where: str) -> None:
    """Stop where the first bytes are those of a compressed file. Raises InputError."""
    for prefix, compression in _COMPRESSED.items():
        if magic.startswith(prefix):
            raise InputError(
                f"{where} is compressed ({compression}): samples cannot be read at random in it",
                "Decompress it; images do not get smaller in a compressed tar.",
            )


def _size(header: bytes) -> int:
    """The content's size, after the header's own checksum was found right. Raises ValueError."""
    stated = _octal(header[148:156], "checksum")
    if sum(header) - sum(header[148:156]) + 8 * 32 != stated:
        raise ValueError("its header is damaged (wrong checksum)")
    return _octal(header[124:136], "size")


def _octal(field: bytes, what: str) -> int:
    match = _OCTAL.match(field)
    if match is None:
        raise ValueError(f"its {what} is no plain octal number")
    return int(match[1], 8)


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] != b"ustar\0":  # GNU's and the oldest headers have no prefix field
        return name
    prefix = header[345:500].split(b"\0", 1)[0]
    return prefix + b"/" + name if prefix else name


def _pax_path(records: bytes) -> bytes | None:
    """The `path` among pax records (`30 key=value\\n`). Raises ValueError."""
    path, at = None, 0
    while at < len(records) and records[at]:
        digits, _, _ = records[at : at + 8].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record = records[at : at + length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if length < 5 or len(record) < length or not equals or record[-1:] != b"\n":
            raise ValueError("its extended header is damaged")
        if key == b"size" or key.startswith(b"GNU.sparse"):
            raise ValueError(f"its extended header overrides the {key[:32].decode()!a}")
        if key == b"path":
            path = value
        at += length
    return path


MAX_MEMBER_BYTES = 1 << 26
"""Largest member that is taken into memory: 64 MiB."""


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
        at, header = self._at, self._exactly(TAR_BLOCK)
        if not at:
            refuse_compressed(header[:6], self._where)
        if header.count(0) == TAR_BLOCK:
            header = self._after_zeros()
            if not header:
                self._ready += bytes(2 * TAR_BLOCK)
                self._ended = True
                return
            at = self._at - TAR_BLOCK
        self._ready += header
        try:
            size, extends = _strictly(header)
            padded = -(-size // TAR_BLOCK) * TAR_BLOCK
            if not extends:
                self._content = padded
                return
            content = self._exactly(padded)
            check_extension(header[156:157], content[:size])
            self._ready += content
        except ValueError as error:
            raise DataError(_refusal(self._where, at, header, error)) from None

    def _after_zeros(self) -> bytes:
        """The header that follows zeros, of an archive behind this one; empty at the file's end."""
        begin = self._at - TAR_BLOCK
        while block := self._up_to(TAR_BLOCK):
            if any(block):
                return block + self._exactly(TAR_BLOCK - len(block))
            check_padding(self._at - begin, begin, self._where)
        return b""

    def _exactly(self, size: int) -> bytes:
        content = self._up_to(size)
        if len(content) < size:
            raise DataError(_without_end(self._where, self._at - len(content), content))
        return content

    def _up_to(self, size: int) -> bytes:
        """`size` bytes, or fewer at the end of the file."""
        parts = bytearray()
        while len(parts) < size and (block := self._raw.read(size - len(parts))):
            parts += block
        self._at += len(parts)
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
