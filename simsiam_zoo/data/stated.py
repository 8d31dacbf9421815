"""What is known of shards before they are opened: by files beside them, or by scanning them once.

The shards of a set are kept as columns: some hundred bytes each, where objects take thousands.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np

from simsiam_zoo.data.index import ShardIndex, load_index
from simsiam_zoo.data.manifest import MANIFEST, TIMM_INFO, index_path, read_info, read_manifest
from simsiam_zoo.data.remote.cache import RemoteShard, ShardCache
from simsiam_zoo.data.remote.urls import redacted
from simsiam_zoo.data.scan import scan
from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.runtime.folders import atomic_write, cache_dir

_SCAN_VERSION = 3  # of what a scan finds: another one scans again


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard, with what is known of it before it is opened.

    One that lies elsewhere has in `path` and `index` where they will be once it was fetched.
    """

    path: Path
    samples: int
    bytes: int
    sha256: str | None  # as its manifest states it
    index: Path
    remote: RemoteShard | None = None

    @property
    def name(self) -> str:
        """Its file's name, without where it lies."""
        return self.path.name if self.remote is None else self.remote.name

    @property
    def where(self) -> str:
        """What errors call it."""
        return str(self.path) if self.remote is None else redacted(self.remote.url)


class ShardRow(NamedTuple):
    """What a table keeps of one shard.

    Attributes:
        location: its path or URL.
        samples, bytes: in it, and of it.
        sha256: as its manifest states it.
        version: what tells it from another of its size where there is no checksum: the time of its
            last change in ns, or what its server calls the version; "" where nothing does.
        cached: the name of its index in the user's cache, "" where the index lies beside it.
        changed: its bytes are not those of the checksum.
    """

    location: str
    samples: int
    bytes: int
    sha256: str | None
    version: str = ""
    cached: str = ""
    changed: bool = False


class ShardTable(Sequence[Shard]):
    """Shards in order; a `Shard` is made when it is asked for.

    Args:
        rows: one for each shard.
        cache: where they are fetched into, if their locations are URLs.

    Attributes:
        samples, bytes: of each shard, int64 [n].
    """

    def __init__(self, rows: Iterable[ShardRow] = (), cache: ShardCache | None = None) -> None:
        folders: dict[str, int] = {}
        self._folder_of, self._names, self._digests, self._indexes = [], [], [], []
        self._versions: list[str] = []
        samples, sizes = [], []
        for row in rows:
            folder, slash, name = row.location.rpartition("/")
            self._folder_of.append(folders.setdefault(folder + slash, len(folders)))
            self._names.append(name)
            self._digests.append(None if row.sha256 is None else bytes.fromhex(row.sha256))
            self._versions.append("" if row.sha256 and not row.changed else row.version)
            self._indexes.append(row.cached)
            samples.append(row.samples)
            sizes.append(row.bytes)
        self._folders = tuple(folders)
        self.samples, self.bytes = np.array(samples, np.int64), np.array(sizes, np.int64)
        self._cache = cache

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Shard: ...

    @overload
    def __getitem__(self, index: slice) -> list[Shard]: ...

    def __getitem__(self, index: int | slice) -> Shard | list[Shard]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        where = self._folders[self._folder_of[index]] + self._names[index]
        samples, size = int(self.samples[index]), int(self.bytes[index])
        digest = self._digests[index]
        sha256 = None if digest is None else digest.hex()
        if self._cache is not None:
            remote = RemoteShard(where, size, samples, sha256, self._versions[index])
            return Shard(
                self._cache.path(remote), samples, size, sha256, self._cache.index(remote), remote
            )
        path, cached = Path(where), self._indexes[index]
        beside = cache_dir() / "indexes" / cached if cached else index_path(path)
        return Shard(path, samples, size, sha256, beside)

    @property
    def without_checksum(self) -> int:
        """Shards whose checksum nobody states: they are known by size and time or version alone."""
        return sum(digest is None for digest in self._digests)

    def digest(self) -> str:
        """SHA-256 (hex) of what tells the shards from others: it changes when bytes may have.

        It is over names, sizes, counts and checksums, never over locations. A shard without a
        checksum counts with its path and the time of its last change, or with what its server
        calls its version (its URL, where the server tells none); one that is not what its checksum
        states, with both.
        """
        sha256 = hashlib.sha256()
        for i, name in enumerate(self._names):
            digest, version = self._digests[i], self._versions[i]
            mark = (digest.hex() if digest else "") + version
            if not digest and (self._cache is None or not version):
                where = self._folders[self._folder_of[i]] + name
                mark += "\0" + (where if self._cache else os.path.abspath(where))
            line = f"{name}\0{self.bytes[i]}\0{self.samples[i]}\0{mark}\n"
            sha256.update(line.encode("utf-8", "surrogateescape"))
        return sha256.hexdigest()


class StatedFolder:
    """What a folder's files state of its shards."""

    def __init__(self, folder: Path) -> None:
        self._splits = tuple((read_manifest(folder) or {}).values())
        self._split_of = {
            shard.name: (split, place)
            for split, of in enumerate(self._splits)
            for place, shard in enumerate(of.shards)
        }
        self._info = folder / TIMM_INFO
        self._counts = {} if self._splits else read_info(folder)

    def classes(self, path: str) -> tuple[str, ...] | None:
        """Of the split that the shard is in, where they are named."""
        split, _ = self._split_of.get(os.path.basename(path), (None, 0))
        return None if split is None else self._splits[split].classes

    def row(self, path: str) -> tuple[ShardRow, ShardIndex | None]:
        """What is known of the shard, from the manifest or by scanning it; the index if it was."""
        try:
            status = os.stat(path)
        except OSError as error:
            raise InputError(f"the shard {path} cannot be read: {error.strerror}") from None
        name, version = os.path.basename(path), str(status.st_mtime_ns)
        if name not in self._split_of:
            cached, index = _cached_index(Path(path), status)
            said = self._counts.get(name)
            if said is not None and said.samples != len(index):
                raise DataError(
                    f"{path} holds {len(index)} samples, and {self._info} states {said.samples}",
                    "Copy the shard again; or, if it is right, count anew: `simsiam-zoo index`.",
                )
            return ShardRow(path, len(index), status.st_size, None, version, cached), index
        split, place = self._split_of[name]
        stated = self._splits[split].shards[place]
        if status.st_size != stated.bytes:
            raise DataError(
                f"{path} has {status.st_size} bytes, its manifest states {stated.bytes}",
                "Copy or pack the shard again.",
            )
        if _index_holds(Path(path), status, stated.sha256):
            return ShardRow(path, stated.samples, stated.bytes, stated.sha256, version), None
        try:
            cached, index = _cached_index(Path(path), status, stated.sha256)
        except DataError:
            if stated.sha256 is None or not _only_images_differ(Path(path), status.st_size):
                raise
            # Each image is compared with the index where it is read.
            row = ShardRow(path, stated.samples, stated.bytes, stated.sha256, version, changed=True)
            return row, None
        if len(index) != stated.samples:
            raise DataError(
                f"{path} holds {len(index)} samples, and its manifest states {stated.samples}",
                "If the shard is right, count anew: `simsiam-zoo index`.",
            )
        row = ShardRow(path, stated.samples, stated.bytes, stated.sha256, version, cached)
        return row, index


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


def _only_images_differ(path: Path, size: int) -> bool:
    """Whether a shard that changed has the keys and labels that the index beside it states."""
    try:
        stated = load_index(index_path(path), size)
    except DataError:
        return False
    try:
        found = scan(path)
    except DataError:
        return True  # a damaged tar tells nothing else; reading it tells which images are damaged
    names = ("keys", "key_ends", "labels")
    same = all(np.array_equal(getattr(found, n), getattr(stated, n)) for n in names)
    return same and found.names == stated.names


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
    name = hashlib.sha256(text).hexdigest()[:32] + ".npz"
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
