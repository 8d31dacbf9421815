"""Tar members crafted byte by byte."""

from __future__ import annotations


def member(
    name: bytes,
    content: bytes = b"",
    kind: bytes = b"0",
    size: bytes | None = None,
    link: bytes = b"",
) -> bytes:
    """One tar member with any type and any size field, its checksum right."""
    header = bytearray(512)
    header[:100] = name.ljust(100, b"\0")
    header[100:108] = header[108:116] = header[116:124] = b"0000644\0"
    header[124:136] = size if size is not None else b"%011o\0" % len(content)
    header[136:148] = b"%011o\0" % 0
    header[148:156] = b" " * 8
    header[156:157] = kind
    header[157:257] = link.ljust(100, b"\0")
    header[257:265] = b"ustar\00000"
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content + bytes(-len(content) % 512)


def pax(key: bytes, value: bytes, kind: bytes = b"x") -> bytes:
    body = b" %s=%s\n" % (key, value)
    length = len(body) + 2
    length += len(str(length)) - 2
    return member(b"PaxHeader", str(length).encode() + body, kind)
