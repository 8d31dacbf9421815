"""What is known of shards before they are opened: by files beside them, or by one scan."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from simsiam_zoo.data.index import ShardIndex, load_index
from simsiam_zoo.data.manifest import MANIFEST, TIMM_INFO, StatedShard, index_path
from simsiam_zoo.data.remote.urls import redacted
from simsiam_zoo.data.scan import scan
from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.runtime.folders import atomic_write, cache_dir

_SCAN_VERSION = 3  # of what a scan finds: another one scans again


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard, with what is known of it before it is opened.

    Attributes:
        location: its path or URL, a string: 100,000 paths would take much memory.
        samples, bytes: in it, and of it.
        sha256: as its manifest states it.
        version: what tells it from another of its size where there is no checksum: the time of its
            last change in ns, or what its server calls the version; "" where nothing does.
        cached: the name of its index in the user's cache, "" where the index lies beside it.
    """

    location: str
    samples: int
    bytes: int
    sha256: str | None
    version: str = ""
    cached: str = ""

    @property
    def name(self) -> str:
        """Its file's name, without where it lies."""
        return self.location.rpartition("/")[2]

    @property
    def where(self) -> str:
        """What errors call it."""
        return redacted(self.location) if "://" in self.location else self.location

    @property
    def index(self) -> Path:
        """Where the index of one on disk lies."""
        beside = index_path(Path(self.location))
        return cache_dir() / "indexes" / self.cached if self.cached else beside


def digest_of(shards: Iterable[Shard], remote: bool) -> str:
    """SHA-256 (hex) of what tells shards from others: it changes when bytes may have.

    It is over names, sizes, counts and checksums, never over locations. A shard without a checksum
    counts with its path and the time of its last change, or with what its server calls its version
    (its URL, where the server tells none).
    """
    digest = hashlib.sha256()
    for shard in shards:
        mark = shard.sha256 or shard.version
        if not shard.sha256 and not (remote and shard.version):
            mark += "\0" + (shard.location if remote else os.path.abspath(shard.location))
        line = f"{shard.name}\0{shard.bytes}\0{shard.samples}\0{mark}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def known_shard(path: str, stated: StatedShard | None) -> tuple[Shard, ShardIndex | None]:
    """What is known of a shard on disk, by what is stated or by scanning it; its index if it was.

    Raises:
        InputError: there is no such file, or its index cannot be written.
        DataError: it is damaged, or not what is stated.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(f"the shard {path} cannot be read: {error.strerror}") from None
    known = stated if stated and stated.bytes is not None else None
    if known and status.st_size != known.bytes:
        raise DataError(
            f"{path} has {status.st_size} bytes, its manifest states {known.bytes}",
            "Copy or pack the shard again.",
        )
    sha256 = known.sha256 if known else None
    version = "" if sha256 else str(status.st_mtime_ns)
    if known and _index_holds(Path(path), status, sha256):
        return Shard(path, known.samples, status.st_size, sha256, version), None
    cached, index = _cached_index(Path(path), status, sha256)
    if stated and stated.samples != len(index):
        by = "its manifest" if known else Path(path).with_name(TIMM_INFO)
        raise DataError(
            f"{path} holds {len(index)} samples, and {by} states {stated.samples}",
            "Copy the shard again; or, if it is right, count anew: `simsiam-zoo index`.",
        )
    return Shard(path, len(index), status.st_size, sha256, version, cached), index


def _index_holds(path: Path, status: os.stat_result, sha256: str | None) -> bool:
    """Whether the index beside a shard is there, and is of this shard.

    It is compared with the shard's bytes where they are read. Only labels are not; a shard whose
    time is not the one that it had is therefore scanned again, and one with a checksum that changed
    after its index was written is compared with the checksum.
    """
    beside = index_path(path)
    if sha256 is not None:
        try:
            return beside.stat().st_mtime_ns >= status.st_mtime_ns
        except OSError:
            return False  # the shard was copied without it
    try:
        return load_index(beside, status.st_size).mtime_ns == status.st_mtime_ns
    except DataError:
        return False


def _cached_index(
    path: Path, status: os.stat_result, sha256: str | None = None
) -> tuple[str, ShardIndex]:
    """The index of a shard in the user's cache (the shard's folder may be read-only), its name.

    It is found by the shard's path, size and time: a shard that changed is indexed anew.

    Raises:
        DataError: the shard is damaged, or has not the checksum that is stated of it.
    """
    identity = [path.absolute(), status.st_size, status.st_mtime_ns, _SCAN_VERSION, sha256 or ""]
    text = "\0".join(map(str, identity)).encode("utf-8", "surrogateescape")
    name = hashlib.sha256(text).hexdigest()[:32] + ".safetensors"
    cached = cache_dir() / "indexes" / name
    try:
        return name, load_index(cached, status.st_size)
    except DataError:  # missing, damaged or of another version
        if sha256 is not None:
            check_sha256(path, sha256)
        index = scan(path)
    try:
        cached.parent.mkdir(exist_ok=True)
        with atomic_write(cached) as file:
            index.save(file)
    except OSError as error:
        raise InputError(
            f"the index of {path} cannot be written to {cached.parent}: {error.strerror}",
            "Set SIMSIAM_ZOO_CACHE to a folder that can be written.",
        ) from None
    return name, index


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises DataError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def check_sha256(path: Path, stated: str) -> None:
    """Read a shard whole. Raises DataError where its bytes are not those of the stated checksum."""
    if sha256(path) != stated:
        raise DataError(
            f"{path} is not the shard that its manifest states: its sha256 differs",
            f"Copy or pack the shard again; or, if it is right, remove its {MANIFEST} and take"
            " checksums anew: `simsiam-zoo index --checksums`.",
        )
