"""A tar archive, read as untrusted input: where its regular members lie, and nothing else.

Only plain, uncompressed members are accepted. Python's `tarfile` follows sizes from extended
headers, sparse maps and base-256 numbers; here each of those is an error that names the offset.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from simsiam_zoo.errors import DataError, InputError

BLOCK = 512
MAX_EXTENSION = 1 << 16  # bytes of one extended header: names, never contents
MAX_NAME = 1 << 12  # bytes; no file system has longer paths

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
    """The regular members of an open tar, in their order.

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
        header = os.pread(descriptor, BLOCK, at)
        if len(header) < BLOCK:
            raise DataError(f"{where} is cut off at offset {at}: the archive has no end")
        if header.count(0) == BLOCK:
            return
        try:
            kind, size = check_header(header)
            content = at + BLOCK
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
            raise DataError(f"{where}: the member at offset {at} is refused: {error}") from None
        at = content + -(-size // BLOCK) * BLOCK


def is_member(header: bytes, size: int) -> bool:
    """Whether a block is the header of a regular member of that size: as an index says it is."""
    stated = _OCTAL.match(header[124:136])
    return header[156:157] in _REGULAR and stated is not None and int(stated[1], 8) == size


def split_name(name: bytes) -> tuple[bytes, bytes] | None:
    """`a/b.left.JPG` → (`a/b`, `left.jpg`), webdataset's rule; None where there is no key.

    The key ends at the first dot of the last part of the name.
    """
    folder, slash, base = name.rpartition(b"/")
    stem, dot, extension = base.partition(b".")
    return (folder + slash + stem, extension.lower()) if stem and dot else None


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
