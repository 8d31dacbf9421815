"""A tar archive, read as untrusted input: where its regular members lie, and nothing else.

Only plain, uncompressed members are accepted. Python's `tarfile` follows sizes from extended
headers, sparse maps and base-256 numbers; here each of those is an error that names the offset.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from simsiam_zoo.errors import DataError, InputError

TAR_BLOCK = 512
MAX_EXTENSION = 1 << 16  # bytes of one extended header: names, never contents
MAX_NAME = 1 << 12  # bytes; no file system has longer paths
MAX_PADDING = 10240 + 2 * TAR_BLOCK
"""Zeros behind a tar's last member: two blocks, and what fills a record of 20 blocks."""

_REGULAR = (b"0", b"\0", b"7")
_EXTENSIONS = (b"x", b"g", b"L")
_OCTAL = re.compile(rb"[ \0]*([0-7]+)[ \0]*\Z")
_COMPRESSED = {
    b"\x1f\x8b": "gzip", b"\x1f\x9d": "compress", b"BZh": "bzip2", b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "zip",
}  # fmt: skip
_KINDS = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device",
          b"6": "a pipe", b"S": "a sparse file", b"K": "a link"}  # fmt: skip


ReadAt = Callable[[int, int], bytes]
"""(size, offset) → the bytes there; fewer only at the end of the file."""


class Member(NamedTuple):
    """A regular member of a tar."""

    name: bytes
    header: int  # offset of its 512-byte header; the content follows
    size: int  # of the content in bytes
    check: int  # CRC-32 of the header


def members(read_at: ReadAt, where: str, total: float = math.inf) -> Iterator[Member]:
    """The regular members of a tar, and of tars that follow it in one file, in their order.

    The file, of `total` bytes where that is known, is read forward only: a stream will do.

    Raises:
        DataError: `where` is damaged or holds what no data shard should; the text names the offset.
        InputError: it is compressed.
    """
    at, zeros, long_name = 0, 0, None
    while True:
        header = read_at(TAR_BLOCK, at)
        if not at:
            _refuse_compressed(header, where)
        if len(header) < TAR_BLOCK:
            if zeros and not any(header):
                return
            if not at and b"ustar" not in header:
                raise DataError(f"{where} is no tar archive")
            cut = f"{where} is cut off at offset {at}: the archive has no end"
            raise DataError(cut, "Copy or write it again.")
        if not any(header):
            at, zeros = at + TAR_BLOCK, zeros + TAR_BLOCK
            _check_padding(zeros, at - zeros, where)
            continue
        zeros = 0
        try:
            kind, size = _check_header(header)
            content = at + TAR_BLOCK
            if content + size > total:
                raise ValueError("its content is cut off")
            if kind in _EXTENSIONS:
                extension = read_at(size, content)
                name = extension.rstrip(b"\0") if kind == b"L" else _pax_path(extension)
                long_name = name if kind != b"g" else long_name  # g is for all, and names none
            else:
                name = long_name or _name(header)
                if len(name) > MAX_NAME:
                    raise ValueError(f"its name of {len(name)} bytes is absurd")
                if kind in _REGULAR and not name.endswith(b"/"):  # how old archives mark a folder
                    yield Member(name, at, size, zlib.crc32(header))
                long_name = None
        except ValueError as error:
            what = f": the member at offset {at}"
            if not at and header[257:262] != b"ustar":
                what = " is no tar archive, or its first member"
            raise DataError(f"{where}{what} is refused: {error}") from None
        at = content + -(-size // TAR_BLOCK) * TAR_BLOCK


def _check_padding(zeros: int, begin: int, where: str) -> None:
    """Refuse more zeros than end an archive: what should be there was never written."""
    if zeros > MAX_PADDING:
        raise DataError(
            f"{where} has only zeros for {zeros:,} bytes and more at offset {begin}: members are"
            " missing there",
            "Copy it again: a download that was not finished looks so. If a tar was written with"
            " a larger blocking factor, write it with the usual one (tar -b 20).",
        )


def is_member(header: bytes, size: int) -> bool:
    """Whether a block is the header of a regular member of that size: as an index says it is."""
    stated = _OCTAL.match(header[124:136])
    return header[156:157] in _REGULAR and stated is not None and int(stated[1], 8) == size


def _check_header(header: bytes) -> tuple[bytes, int]:
    """Type and size of a member that may be there. Raises ValueError for others."""
    if sum(header) - sum(header[148:156]) + 8 * 32 != _octal(header[148:156], "checksum"):
        raise ValueError("its header is damaged (wrong checksum)")
    kind, size = header[156:157], _octal(header[124:136], "size")
    if kind in _EXTENSIONS:
        if size > MAX_EXTENSION:
            raise ValueError(f"its extended header of {size} bytes is absurd")
    elif kind not in _REGULAR and kind != b"5":
        raise ValueError(f"it is {_KINDS.get(kind, f'of the unknown type {kind!r}')}")
    return kind, size


def _refuse_compressed(magic: bytes, where: str) -> None:
    for prefix, compression in _COMPRESSED.items():
        if magic.startswith(prefix):
            raise InputError(
                f"{where} is compressed ({compression}): samples cannot be read at random in it",
                "Decompress it; images do not get smaller in a compressed tar.",
            )


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
