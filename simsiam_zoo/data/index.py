"""The index of one shard: where each sample's image lies, and its label. No pickle in it."""

from __future__ import annotations

import json
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.data.tar import TAR_BLOCK, Member, members, split_name
from simsiam_zoo.errors import DataError

INDEX_VERSION = 2
"""Version 1 had no `image_checks`; it is still read."""
IMAGE_FORMATS = ("jpg", "png", "webp")
"""What `ShardIndex.formats` counts; the image's first bytes decide how it is decoded."""
MAX_IMAGE_BYTES = 1 << 28
MAX_LABEL_BYTES = 1 << 20
UNLABELLED = -1
_PIECE = 1 << 20

_META = re.compile(rb"__[^/]*__(\Z|/)")  # webdataset's own members, which are no samples
_EXTENSIONS = {b"jpg": 0, b"jpeg": 0, b"png": 1, b"webp": 2}
_DTYPES = {
    "keys": "|u1", "key_ends": "<i8", "offsets": "<i8", "sizes": "<i8", "checks": "<u4",
    "labels": "<i8", "formats": "|u1", "about": "<i8", "image_checks": "<u4",
}  # fmt: skip
_FREE = ("keys", "about", "image_checks")  # whose length need not be n


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The samples of one tar, n of them, in the tar's order.

    Attributes:
        keys: the keys' bytes, one after the other.
        key_ends: [n] where each key ends in `keys`.
        offsets: [n] where the header of each image's tar member starts.
        sizes: [n] bytes of each image.
        checks: [n] CRC-32 of that header: a reader knows that it found what was indexed.
        labels: [n], -1 where there is none.
        formats: [n] places in `IMAGE_FORMATS`, by the member's name.
        about: (version of the index, size of the tar in bytes).
        image_checks: [n] CRC-32 of each image's bytes, or [0] where they are not known.
    """

    keys: NDArray[np.uint8]
    key_ends: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    checks: NDArray[np.uint32]
    labels: NDArray[np.int64]
    formats: NDArray[np.uint8]
    about: NDArray[np.int64]
    image_checks: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.offsets)

    def key(self, i: int) -> str:
        """The i-th sample's key, control characters escaped: fit to be shown, not to be opened."""
        begin = int(self.key_ends[i - 1]) if i else 0
        return printable(self.keys[begin : int(self.key_ends[i])].tobytes())

    def save(self, file: BinaryIO) -> None:
        """Write it as an uncompressed npz; equal indexes give equal bytes."""
        np.savez(file, **{f.name: getattr(self, f.name) for f in fields(self)})


def printable(raw: bytes) -> str:
    """A name from a shard as text that can be shown: nothing in it can drive a terminal."""
    text = raw.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def load_index(path: Path, tar_size: int) -> ShardIndex:
    """Read an index as untrusted input.

    Args:
        path: the npz.
        tar_size: the shard's size in bytes: everything must lie inside it.

    Raises:
        DataError: it is damaged, of another version, or belongs to another tar.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {
                name: _array(archive, name, dtype)
                for name, dtype in _DTYPES.items()
                if name != "image_checks"
            }
            arrays["image_checks"] = np.empty(0, np.uint32)
            if arrays["about"][:1].tolist() != [1]:
                arrays["image_checks"] = _array(archive, "image_checks", "<u4")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, struct.error) as error:
        raise DataError(f"the index {path} cannot be read: {error}") from None
    index = ShardIndex(**arrays)
    problem = _problem(index, tar_size)
    if problem:
        raise DataError(f"the index {path} does not fit its shard: {problem}")
    return index


@dataclass(frozen=True)
class Findings:
    """What a scan met beside the samples.

    Attributes:
        scattered: samples whose members do not lie side by side: repaired here, but a reader that
            streams would see each of them as several.
        without_image: keys that name no image.
    """

    scattered: int
    without_image: int


def scan(path: Path, checksums: bool = False) -> ShardIndex:
    """Index a tar by reading its headers and labels, and with `checksums` every image.

    Members of one key make one sample, wherever they lie. A sample's image is its first member
    named jpg, jpeg, png or webp; its label is in `cls` (digits) or `label` of `json`. Samples
    without an image and members of other kinds are passed over, unread. Where the names hold no
    image by webdataset's rule because they are dotted (`n01.44.jpg`), keys end at the last dot.

    Raises:
        DataError: the tar is damaged, or names members twice.
        InputError: the tar is compressed.
    """
    return survey(path, checksums)[0]


def survey(path: Path, checksums: bool = False) -> tuple[ShardIndex, Findings]:
    """`scan`, and what else was found."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found = [m for m in members(descriptor, str(path)) if not _META.match(m.name)]
        split = [(m, split_name(m.name)) for m in found]
        if not any(pair and pair[1] in _EXTENSIONS for _, pair in split):
            split = [(m, _split_at_last_dot(m.name)) for m in found]
        samples, scattered = _group(((m, *pair) for m, pair in split if pair), str(path))
        index = _pack(descriptor, samples, checksums)
        return index, Findings(scattered, len(samples) - len(index))
    finally:
        os.close(descriptor)


@dataclass
class _Found:
    last: int  # place of its newest member among all
    image: Member | None = None
    format: int = 0
    cls: Member | None = None
    json: Member | None = None


def _group(
    named: Iterable[tuple[Member, bytes, bytes]], where: str
) -> tuple[dict[bytes, _Found], int]:
    """The samples by key, and how many of them do not lie side by side."""
    samples: dict[bytes, _Found] = {}
    seen, scattered, repeated = set(), set(), []
    for place, (member, key, extension) in enumerate(named):
        if (key, extension) in seen:
            repeated.append((member.header, key, extension))
            continue
        seen.add((key, extension))
        sample = samples.setdefault(key, _Found(place))
        if place - sample.last > 1:
            scattered.add(key)
        sample.last = place
        if extension == b"cls":
            sample.cls = member
        elif extension == b"json":
            sample.json = member
        elif extension in _EXTENSIONS and sample.image is None:
            sample.image, sample.format = member, _EXTENSIONS[extension]
    if repeated:
        header, key, extension = repeated[0]
        raise DataError(
            f"{where}: {len(repeated)} members have a name that was there before; the first,"
            f" at offset {header}, repeats {printable(key)}.{printable(extension)}:"
            " one key names two samples",
            "Pack the data again with a key of its own for each sample.",
        )
    return samples, len(scattered)


def _pack(descriptor: int, samples: dict[bytes, _Found], checksums: bool) -> ShardIndex:
    kept = [(key, s, s.image) for key, s in samples.items() if s.image is not None]
    images = [image for _, _, image in kept] if checksums else []
    return ShardIndex(
        keys=np.frombuffer(b"".join(key for key, _, _ in kept), np.uint8),
        key_ends=np.cumsum([len(key) for key, _, _ in kept], dtype=np.int64),
        offsets=np.array([image.header for _, _, image in kept], np.int64),
        sizes=np.array([image.size for _, _, image in kept], np.int64),
        checks=np.array([image.check for _, _, image in kept], np.uint32),
        labels=np.array([_label(descriptor, sample) for _, sample, _ in kept], np.int64),
        formats=np.array([sample.format for _, sample, _ in kept], np.uint8),
        about=np.array([INDEX_VERSION, os.fstat(descriptor).st_size], np.int64),
        image_checks=np.array([_checksum(descriptor, image) for image in images], np.uint32),
    )


def _checksum(descriptor: int, member: Member) -> int:
    """CRC-32 of a member's content, read in bounded pieces."""
    check, at, end = 0, member.header + TAR_BLOCK, member.header + TAR_BLOCK + member.size
    while at < end:
        piece = os.pread(descriptor, min(end - at, _PIECE), at)
        if not piece:
            raise DataError(f"the tar was cut off at offset {at} while it was read")
        check, at = zlib.crc32(piece, check), at + len(piece)
    return check


def _label(descriptor: int, sample: _Found) -> int:
    for member in (sample.cls, sample.json):
        if member is None or member.size > MAX_LABEL_BYTES:
            continue
        text = os.pread(descriptor, member.size, member.header + TAR_BLOCK)
        value: Any = None
        if member is sample.cls:
            digits = text.strip()
            value = int(digits) if digits.isdigit() and len(digits) < 19 else None
        else:
            try:
                document = json.loads(text)
            except (ValueError, RecursionError):
                continue
            value = document.get("label") if isinstance(document, dict) else None
        if type(value) is int and 0 <= value < 1 << 62:
            return value
    return UNLABELLED


def _split_at_last_dot(name: bytes) -> tuple[bytes, bytes] | None:
    stem, dot, extension = name.rpartition(b".")
    return (stem, extension.lower()) if stem and dot and b"/" not in extension else None


def _array(archive: zipfile.ZipFile, name: str, dtype: str) -> NDArray[Any]:
    """One 1-d array of a known type; its stated length is checked before memory is spent."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError("it is compressed")
    with archive.open(info) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("it was not written here")
        header = file.tell()
        try:
            shape, _, found = np.lib.format.read_array_header_1_0(file, max_header_size=1 << 12)
        except SystemError:  # Pythons before 3.11.8 may mix up two threads that parse (gh-106905)
            file.seek(header)
            shape, _, found = np.lib.format.read_array_header_1_0(file, max_header_size=1 << 12)
        content = file.read()
    if found != np.dtype(dtype) or len(shape) != 1:
        raise ValueError(f"{name} is not of its type")
    if math.prod(shape) * found.itemsize != len(content):
        raise ValueError(f"{name} is not of its length")
    return np.frombuffer(content, dtype)


def _problem(index: ShardIndex, tar_size: int) -> str | None:
    n = len(index)
    lengths = {len(getattr(index, name)) for name in _DTYPES if name not in _FREE}
    if len(index.about) != 2 or index.about[0] not in (1, INDEX_VERSION):
        return "it is of another version"
    if lengths != {n} or len(index.image_checks) not in (0, n):
        return "its columns differ in length"
    if index.about[1] != tar_size:
        return f"the shard had {index.about[1]} bytes when it was indexed and has {tar_size} now"
    if n == 0:
        return None
    ends = np.diff(index.key_ends, prepend=0)
    if (ends < 0).any() or index.key_ends[-1] != len(index.keys):
        return "its keys are damaged"
    inside = (index.offsets >= 0) & (index.sizes >= 0) & (index.sizes <= tar_size)
    inside &= index.offsets <= tar_size - TAR_BLOCK - np.minimum(index.sizes, tar_size)
    if not inside.all() or (index.offsets % TAR_BLOCK).any():
        return "it points outside"
    order = np.argsort(index.offsets)
    ends_of = (index.offsets + TAR_BLOCK + index.sizes)[order]
    if (index.offsets[order][1:] < ends_of[:-1]).any():
        return "its images overlap"
    if (index.labels < UNLABELLED).any() or (index.formats >= len(IMAGE_FORMATS)).any():
        return "its labels or formats are damaged"
    return None
