"""The index of one shard: where each sample's image lies, and its label. No pickle in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass
from safetensors import safe_open
from safetensors.numpy import save

from simsiam_zoo.data.tar import TAR_BLOCK
from simsiam_zoo.errors import DataError
from simsiam_zoo.runtime.folders import atomic_write

VERSION = 3
MAX_IMAGE_BYTES = 1 << 28
UNLABELLED = -1

_COLUMNS = {
    "keys": "|u1", "key_ends": "<i8", "offsets": "<i8", "sizes": "<i8", "checks": "<u4",
    "labels": "<i8", "image_checks": "<u4",
}  # fmt: skip
_ANEW = "Write it anew: `simsiam-zoo index`."
_FREE = ("keys", "image_checks")  # whose length need not be n


class ImageError(DataError):
    """One image is damaged. The text says how, not which: only the caller knows that."""


def _shown(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it cannot be shown")
    return text


Shown = Annotated[str, AfterValidator(_shown)]
Count = Annotated[int, Field(strict=True, ge=0, lt=1 << 62)]


@checked_dataclass
class Findings:
    """What a scan met beside the samples."""

    scattered: Count = 0
    """Keys whose members do not lie side by side: who streams them sees several samples."""
    without_image: Count = 0  # keys that name no image
    passed_over: Count = 0
    """Images that are no sample's: a second one of a key, of a kind not read, without a key."""
    unread_labels: Count = 0  # samples whose label is there and cannot be read
    first_passed: Shown = ""
    first_unread: Shown = ""

    def pass_over(self, name: str) -> None:
        """Count an image that is not read."""
        self.passed_over += 1
        self.first_passed = self.first_passed or name


@checked_dataclass
class _About:
    """What an index holds beside its columns; see `ShardIndex`."""

    tar_bytes: Count
    names: tuple[Shown, ...]
    findings: Findings
    mtime_ns: int | None
    version: int = VERSION


_ABOUT = TypeAdapter(_About)


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The samples of one tar, n of them, in the tar's order."""

    keys: NDArray[np.uint8]  # the keys' bytes, one after the other
    key_ends: NDArray[np.int64]  # [n] where each key ends in `keys`
    offsets: NDArray[np.int64]  # [n] where the header of each image's tar member starts
    sizes: NDArray[np.int64]  # [n] bytes of each image
    checks: NDArray[np.uint32]
    """[n] CRC-32 of that header: a reader knows that it found what was indexed."""
    labels: NDArray[np.int64]  # [n], -1 where there is none, -2 - k for the class `names[k]`
    image_checks: NDArray[np.uint32]  # [n] CRC-32 of each image, or [0] where they are not known
    tar_bytes: int
    names: tuple[str, ...] = ()  # of classes that labels name, sorted
    findings: Findings = field(default_factory=Findings)
    mtime_ns: int | None = None  # of the tar, where no checksum tells it from another

    def __len__(self) -> int:
        return len(self.offsets)

    def key(self, i: int) -> str:
        """The i-th sample's key, control characters escaped: fit to be shown, not to be opened."""
        begin = int(self.key_ends[i - 1]) if i else 0
        return printable(self.keys[begin : int(self.key_ends[i])].tobytes())

    def save(self, path: Path) -> None:
        """Write it as safetensors, all or nothing; equal indexes give equal bytes."""
        about = _About(self.tar_bytes, self.names, self.findings, self.mtime_ns)
        columns = {name: getattr(self, name) for name in _COLUMNS}
        with atomic_write(path) as file:
            file.write(save(columns, {"about": _ABOUT.dump_json(about).decode()}))

    def resolved_labels(self, classes: tuple[str, ...] | None) -> NDArray[np.int64]:
        """`labels` [n], names by their places in `classes`; -1 where they are not in it."""
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
    """Read what `ShardIndex.save` wrote for a tar of `tar_size` bytes, as untrusted input.

    Raises DataError where it is damaged, of another version, or of another tar.
    """
    try:
        with safe_open(path, "numpy") as file:
            about = _ABOUT.validate_json((file.metadata() or {})["about"])
            columns = {name: file.get_tensor(name) for name in _COLUMNS}
        for name, column in columns.items():
            if column.dtype != np.dtype(_COLUMNS[name]) or column.ndim != 1:
                raise ValueError(f"{name} is not of its type")
    except Exception as error:  # what hostile files and headers raise is listed nowhere
        raise DataError(f"the index {path} cannot be read: {error}", _ANEW) from None
    if about.version != VERSION:
        raise DataError(f"the index {path} is of another version", _ANEW)
    held = {name: getattr(about, name) for name in ("tar_bytes", "names", "findings", "mtime_ns")}
    index = ShardIndex(**columns, **held)
    if problem := _problem(index, tar_size):
        raise DataError(f"the index {path} does not fit its shard: {problem}", _ANEW)
    return index


def _problem(index: ShardIndex, tar_size: int) -> str | None:
    n = len(index)
    lengths = {len(getattr(index, name)) for name in _COLUMNS if name not in _FREE}
    if lengths != {n} or len(index.image_checks) not in (0, n):
        return "its columns differ in length"
    if index.tar_bytes != tar_size:
        return f"the shard had {index.tar_bytes} bytes when it was indexed and has {tar_size} now"
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
    if (index.labels < UNLABELLED - len(index.names)).any():
        return "its labels are damaged"
    return None
