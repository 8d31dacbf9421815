"""What the members of a tar make: samples, their images and their labels. Nothing is decoded.

A member's key ends at the first dot of its name, as webdataset has it: in `x.input.jpg` and `x.cls`
it is `x`. The members of one key are one sample, of one image.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from simsiam_zoo.data.index import UNLABELLED, Findings, ShardIndex, printable
from simsiam_zoo.data.tar import TAR_BLOCK, Member, members
from simsiam_zoo.errors import DataError

IMAGE_ENDINGS = frozenset(b"jpg jpeg jpe jfif pjpeg pjp png webp".split())
"""Endings of images that are read. What is in one decides how it is decoded."""
BAND_ENDINGS = frozenset(b"npy tif tiff".split())
"""Endings of arrays and TIFFs, which are images where there are no others (`data.bands`)."""
UNREAD_ENDINGS = frozenset(b"bmp gif tif tiff ppm pgm pnm heic heif avif jp2 jxl svg".split())
"""Endings of images that are not read."""
MAX_LABEL_BYTES = 1 << 20
MAX_CLASS_NAME = 200  # characters
_HEAD = 12  # bytes that tell what a file is
_PIECE = 1 << 20
_LABELS = (b"cls", b"json")
_META = re.compile(rb"__[^/]*__(\Z|/)")  # webdataset's own members, which are no samples
_NAME = re.compile(rb"((?:.*/)?[^/.][^/.]*)\.([^/]*)\Z", re.DOTALL)

_T = TypeVar("_T")


@dataclass
class FoundSample(Generic[_T]):
    """One sample: its key, its image and (`cls` or `json`, member) of its labels."""

    key: bytes
    image: _T
    labels: list[tuple[bytes, _T]]


def key_of(name: bytes) -> tuple[bytes, bytes] | None:
    """`a/b.left.JPG` → (`a/b`, `left.jpg`), webdataset's rule; None where there is no key."""
    match = _NAME.match(name)
    return (match[1], match[2].lower()) if match else None


def is_litter(name: bytes) -> bool:
    """Whether it is what macOS lays beside files (`._x.jpg`), or a member of webdataset's own."""
    last = name.rpartition(b"/")[2]
    return last.startswith(b"._") or b"__MACOSX/" in name or _META.match(name) is not None


def image_format(head: bytes) -> str:
    """What the first bytes of a file are those of: jpg, png, webp, or an empty text for others."""
    if head.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    return "webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else ""


def is_image(ending: bytes, head: Callable[[], bytes]) -> bool:
    """Whether a member is an image that is read or not, by what it is called or how it begins."""
    kind = ending.rpartition(b".")[2]
    named = kind in IMAGE_ENDINGS or kind in UNREAD_ENDINGS
    return named or (kind not in _LABELS and bool(image_format(head())))


def sample_of(
    key: bytes,
    parts: Mapping[bytes, _T],
    head: Callable[[_T], bytes],
    pass_over: Callable[[str], None],
    bands: bool = False,
) -> FoundSample[_T] | None:
    """The sample that the members of one key make: of the first image, `jpg` before `seg.jpg`.

    `parts` are the members by what follows the key's dot; `head` gives a member's first bytes;
    `pass_over` is told the names of images that are no sample's. With `bands` an array or a TIFF is
    the image.
    """
    images = []
    for ending, member in parts.items():
        if bands and ending.rpartition(b".")[2] in BAND_ENDINGS:
            images.append((ending, member))
        elif ending.rpartition(b".")[2] in UNREAD_ENDINGS:
            pass_over(printable(key + b"." + ending))
        elif is_image(ending, partial(head, member)):
            images.append((ending, member))
    images.sort(key=lambda image: (b"." in image[0], image[0] not in IMAGE_ENDINGS))
    for ending, _ in images[1:]:
        pass_over(printable(key + b"." + ending))
    if not images:
        return None
    labels = [(kind, parts[kind]) for kind in _LABELS if kind in parts]
    return FoundSample(key, images[0][1], labels)


def scan(path: Path, checksums: bool = False) -> ShardIndex:
    """Index a tar by reading its headers and labels, and with `checksums` every image.

    Members of one key make one sample, wherever they lie. Where no key has an image, arrays and
    TIFFs are the images. Raises DataError where the tar is
    damaged, cannot be read, or names members twice; InputError where it is compressed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"the shard {path} cannot be read: {error.strerror}") from None
    findings = Findings()

    def head(member: Member) -> bytes:
        return os.pread(descriptor, min(_HEAD, member.size), member.header + TAR_BLOCK)

    try:
        groups, scattered = _group(descriptor, str(path), head, findings)
        samples, found = _samples(groups, scattered, head, findings, bands=False)
        if not samples:
            as_bands = _samples(groups, scattered, head, findings, bands=True)
            samples, found = as_bands if as_bands[0] else (samples, found)
        samples.sort(key=lambda s: min(m.header for m in (s.image, *(m for _, m in s.labels))))
        return _index(descriptor, samples, found, checksums)
    finally:
        os.close(descriptor)


def _samples(
    groups: Mapping[bytes, Mapping[bytes, Member]],
    scattered: set[bytes],
    head: Callable[[Member], bytes],
    findings: Findings,
    bands: bool,
) -> tuple[list[FoundSample[Member]], Findings]:
    """The samples of a tar's keys, and what was met beside them, added to `findings`."""
    found, samples = replace(findings), list[FoundSample[Member]]()
    for key, parts in groups.items():
        if (sample := sample_of(key, parts, head, found.pass_over, bands)) is None:
            found.without_image += 1
            continue
        found.scattered += key in scattered
        samples.append(sample)
    return samples, found


def _group(
    descriptor: int, where: str, head: Callable[[Member], bytes], findings: Findings
) -> tuple[dict[bytes, dict[bytes, Member]], set[bytes]]:
    """The members by key and ending, in the tar's order; and the keys whose members lie apart."""
    groups: dict[bytes, dict[bytes, Member]] = {}
    scattered: set[bytes] = set()
    repeated: list[Member] = []
    before = b""
    size = os.fstat(descriptor).st_size
    for member in members(partial(os.pread, descriptor), where, size):
        if is_litter(member.name):
            continue
        if (pair := key_of(member.name)) is None:
            if is_image(member.name.lower(), partial(head, member)):
                findings.pass_over(printable(member.name))
            continue
        key, ending = pair
        if ending in groups.get(key, ()):
            repeated.append(member)
            continue
        if key in groups and key != before:
            scattered.add(key)
        before = key
        groups.setdefault(key, {})[ending] = member
    if repeated:
        name, header, *_ = repeated[0]
        raise DataError(
            f"{where}: {len(repeated)} members have a name that was there before; the first,"
            f" at offset {header}, repeats {printable(name)}: one key names two samples",
            "Pack the data again with a key of its own for each sample.",
        )
    return groups, scattered


def _index(
    descriptor: int, samples: list[FoundSample[Member]], findings: Findings, checksums: bool
) -> ShardIndex:
    told = [_label(descriptor, sample, findings) for sample in samples]
    names = sorted({label for label in told if isinstance(label, str)})
    code = {name: UNLABELLED - 1 - place for place, name in enumerate(names)}
    labels = [code[label] if isinstance(label, str) else label for label in told]
    images = [sample.image for sample in samples]
    checks = [_checksum(descriptor, image) for image in images] if checksums else []
    return ShardIndex(
        keys=np.frombuffer(b"".join(sample.key for sample in samples), np.uint8),
        key_ends=np.cumsum([len(sample.key) for sample in samples], dtype=np.int64),
        offsets=np.array([image.header for image in images], np.int64),
        sizes=np.array([image.size for image in images], np.int64),
        checks=np.array([image.check for image in images], np.uint32),
        labels=np.array(labels, np.int64),
        tar_bytes=os.fstat(descriptor).st_size,
        image_checks=np.array(checks, np.uint32),
        names=tuple(names),
        findings=findings,
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


def _label(descriptor: int, sample: FoundSample[Member], findings: Findings) -> int | str:
    """A number, a class's name, or -1 where none is told or it cannot be read."""
    problem = ""
    for kind, member in sample.labels:
        size = min(member.size, MAX_LABEL_BYTES + 1)
        content = os.pread(descriptor, size, member.header + TAR_BLOCK)
        if len(content) > MAX_LABEL_BYTES:
            problem = f"its {kind.decode()} has {member.size:,} bytes"
            continue
        try:
            label = read_label(content, kind == b"json")
        except ValueError as error:
            problem = str(error)
            continue
        if label is not None:
            return label
    if problem:
        findings.unread_labels += 1
        findings.first_unread = findings.first_unread or f"{printable(sample.key)}: {problem}"
    return UNLABELLED


def read_label(content: bytes, in_json: bool = False) -> int | str | None:
    """The label in a `cls`, or in `label` of a `json`: a number, or the name of a class.

    Numbers may be written as 3, 3.0, "3" or [3], names with quotation marks or without. None where
    nothing is there, or a negative number; raises ValueError for what is no label.
    """
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig").strip(" \t\r\n\0")
        value: Any = json.loads(text) if in_json or text[:1] in ('"', "[") else text
    except UnicodeDecodeError:
        raise ValueError("its label is no text") from None
    except (ValueError, RecursionError):
        raise ValueError("its JSON cannot be read") from None
    if in_json:
        value = value.get("label") if isinstance(value, dict) else None
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if isinstance(value, str):
        value = value.strip()
        try:
            if not value.isascii() or "_" in value:  # what Python alone takes for digits
                raise ValueError
            value = int(value) if value.isdigit() and len(value) < 19 else float(value)
        except ValueError:
            if value and (len(value) > MAX_CLASS_NAME or not value.isprintable()):
                raise ValueError("its label is no class's name") from None
            return str(value) or None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or (type(value) is int and value < 0):
        return None
    if type(value) is not int or value >= 1 << 62:
        raise ValueError(f"its label is {str(value)[:40]!a}")
    return value


_NOTES = (
    ("passed_over", "images", "were passed over: they are no sample's, or no JPEG, PNG or WebP",
     "first_passed"),
    ("without_image", "keys", "name no image, and were passed over", ""),
    ("unread_labels", "images", "have a label that cannot be read, and count as unlabelled",
     "first_unread"),
    ("scattered", "samples", "do not have their members side by side: repaired in the index, but"
     " programs that stream them will see parts", ""),
)  # fmt: skip


def describe_findings(findings: Iterable[Findings]) -> list[str]:
    """What people should know of scanned shards: a line for each kind of finding."""
    found, lines = list(findings), []
    for kind, unit, what, first in _NOTES:
        counts = [getattr(one, kind) for one in found]
        if total := sum(counts):
            shards = sum(count > 0 for count in counts)
            examples = [getattr(one, first) for one in found if getattr(one, kind)] if first else []
            example = f"; the first: {examples[0]}" if examples else ""
            lines.append(f"{total:,} {unit} in {shards:,} shards {what}{example}")
    return lines
