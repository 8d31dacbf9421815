"""The index of one shard: where each sample's image lies, and its label. No pickle in it."""

from __future__ import annotations

import json
import math
import zipfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.data.tar import TAR_BLOCK
from simsiam_zoo.errors import DataError

VERSION = 2
IMAGE_FORMATS = ("jpg", "png", "webp")
"""What `ShardIndex.formats` counts; the image's first bytes decide how it is decoded."""
MAX_IMAGE_BYTES = 1 << 28
UNLABELLED = -1

_DTYPES = {
    "keys": "|u1", "key_ends": "<i8", "offsets": "<i8", "sizes": "<i8", "checks": "<u4",
    "labels": "<i8", "formats": "|u1", "about": "<i8", "image_checks": "<u4",
}  # fmt: skip
_FREE = ("keys", "about", "image_checks")  # whose length need not be n


class ImageError(DataError):
    """One image is damaged. The text says how, not which: only the caller knows that."""


@dataclass
class Findings:
    """What a scan met beside the samples.

    Attributes:
        scattered: keys whose members do not lie side by side: repaired here, but a reader that
            streams would see each of them as several.
        without_image: keys that name no image.
        passed_over: images that are no sample's: a second one of a key, or of a kind that is not
            read, or without a key.
        unread_labels: samples whose label is there and cannot be read.
        first_passed, first_unread: the first of each, to be shown.
    """

    scattered: int = 0
    without_image: int = 0
    passed_over: int = 0
    unread_labels: int = 0
    first_passed: str = ""
    first_unread: str = ""

    def pass_over(self, name: str) -> None:
        """Count an image that is not read."""
        self.passed_over += 1
        self.first_passed = self.first_passed or name


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The samples of one tar, n of them, in the tar's order.

    Attributes:
        keys: the keys' bytes, one after the other.
        key_ends: [n] where each key ends in `keys`.
        offsets: [n] where the header of each image's tar member starts.
        sizes: [n] bytes of each image.
        checks: [n] CRC-32 of that header: a reader knows that it found what was indexed.
        labels: [n], -1 where there is none, -2 - k for the class `names[k]`.
        formats: [n] places in `IMAGE_FORMATS`, by the member's name.
        about: (version of the index, size of the tar in bytes).
        image_checks: [n] CRC-32 of each image's bytes, or [0] where they are not known.
        names: of classes that labels name, sorted.
        findings: what the scan met beside the samples.
        mtime_ns: when the tar was changed last, where no checksum tells it from another.
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
    names: tuple[str, ...] = ()
    findings: Findings = field(default_factory=Findings)
    mtime_ns: int | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def key(self, i: int) -> str:
        """The i-th sample's key, control characters escaped: fit to be shown, not to be opened."""
        begin = int(self.key_ends[i - 1]) if i else 0
        return printable(self.keys[begin : int(self.key_ends[i])].tobytes())

    def save(self, file: BinaryIO) -> None:
        """Write it as an uncompressed npz; equal indexes give equal bytes."""
        columns = {name: getattr(self, name) for name in _DTYPES}
        extra = {"names": self.names, "findings": asdict(self.findings), "mtime_ns": self.mtime_ns}
        if extra != {"names": (), "findings": asdict(Findings()), "mtime_ns": None}:
            columns["extra"] = np.frombuffer(json.dumps(extra).encode(), np.uint8)
        np.savez(file, **columns)

    def resolved_labels(self, classes: tuple[str, ...] | None) -> NDArray[np.int64]:
        """`labels`, those that are names by their places in `classes`; -1 where they are not in it.

        Labels [n].
        """
        if not self.names:
            return self.labels
        place = {name: i for i, name in enumerate(classes or ())}
        table = np.array([UNLABELLED] + [place.get(n, UNLABELLED) for n in self.names], np.int64)
        return np.where(self.labels < 0, table[np.minimum(0, self.labels + 1) * -1], self.labels)


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
            arrays: dict[str, Any] = {
                name: _array(archive, name, dtype) for name, dtype in _DTYPES.items()
            }
            stated = "extra.npy" in archive.namelist()
            extra = _array(archive, "extra", "|u1").tobytes() if stated else b"{}"
        index = replace(ShardIndex(**arrays), **_read_extra(extra))
    except Exception as error:  # what hostile archives and headers raise is listed nowhere
        raise DataError(f"the index {path} cannot be read: {error}") from None
    problem = _problem(index, tar_size)
    if problem:
        raise DataError(f"the index {path} does not fit its shard: {problem}")
    return index


def _read_extra(content: bytes) -> dict[str, Any]:
    """Names, findings and time of an index. Raises ValueError, TypeError."""
    extra = json.loads(content)
    names, findings, mtime_ns = (extra.get(k) for k in ("names", "findings", "mtime_ns"))
    if not all(isinstance(name, str) and name.isprintable() for name in names or ()):
        raise ValueError("the names of its classes are damaged")
    found = Findings(**(findings or {}))
    counts: dict[str, Any] = asdict(found)
    texts = counts.pop("first_passed"), counts.pop("first_unread")
    numbers = all(type(value) is int and 0 <= value < 1 << 62 for value in counts.values())
    if not numbers or not all(isinstance(text, str) and text.isprintable() for text in texts):
        raise ValueError("what it says of the scan is damaged")
    if mtime_ns is not None and type(mtime_ns) is not int:
        raise ValueError("its time is damaged")
    return {"names": tuple(names or ()), "findings": found, "mtime_ns": mtime_ns}


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
    if len(index.about) != 2 or index.about[0] != VERSION:
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
    known_labels = index.labels >= UNLABELLED - len(index.names)
    if not known_labels.all() or (index.formats >= len(IMAGE_FORMATS)).any():
        return "its labels or formats are damaged"
    return None
