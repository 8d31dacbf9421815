"""The shards of a set as columns: some hundred bytes each, where objects take thousands."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np

from simsiam_zoo.data.manifest import index_path
from simsiam_zoo.data.remote.cache import RemoteShard, ShardCache
from simsiam_zoo.data.remote.urls import redacted
from simsiam_zoo.runtime.folders import cache_dir


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


class Row(NamedTuple):
    """What a table keeps of one shard.

    `place` is its path or URL; `cached` the name of its index in the user's cache, "" where the
    index lies beside it.
    """

    place: str
    samples: int
    bytes: int
    sha256: str | None
    cached: str = ""


class ShardTable(Sequence[Shard]):
    """Shards in order; a `Shard` is made when it is asked for.

    Args:
        rows: one for each shard.
        cache: where they are fetched into, if their places are URLs.

    Attributes:
        samples, bytes: of each shard, int64 [n].
    """

    def __init__(self, rows: Iterable[Row] = (), cache: ShardCache | None = None) -> None:
        folders: dict[str, int] = {}
        self._folder_of, self._names, self._digests, self._indexes = [], [], [], []
        samples, sizes = [], []
        for row in rows:
            folder, slash, name = row.place.rpartition("/")
            self._folder_of.append(folders.setdefault(folder + slash, len(folders)))
            self._names.append(name)
            self._digests.append(None if row.sha256 is None else bytes.fromhex(row.sha256))
            self._indexes.append(row.cached)
            samples.append(row.samples)
            sizes.append(row.bytes)
        self._folders = tuple(folders)
        self.samples, self.bytes = np.array(samples, np.int64), np.array(sizes, np.int64)
        self._cache = cache

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, place: int) -> Shard: ...

    @overload
    def __getitem__(self, place: slice) -> list[Shard]: ...

    def __getitem__(self, place: int | slice) -> Shard | list[Shard]:
        if isinstance(place, slice):
            return [self[i] for i in range(len(self))[place]]
        where = self._folders[self._folder_of[place]] + self._names[place]
        samples, size = int(self.samples[place]), int(self.bytes[place])
        digest = self._digests[place]
        sha256 = None if digest is None else digest.hex()
        if self._cache is not None:
            remote = RemoteShard(where, size, samples, sha256)
            path, index = self._cache.path(remote), self._cache.index(remote)
            return Shard(path, samples, size, sha256, index, remote)
        path, cached = Path(where), self._indexes[place]
        index = cache_dir() / "indexes" / cached if cached else index_path(path)
        return Shard(path, samples, size, sha256, index)

    def digest(self) -> str:
        """SHA-256 (hex) over names, sizes, counts and known checksums; never over locations."""
        sha256 = hashlib.sha256()
        rows = zip(self._names, self.bytes, self.samples, self._digests, strict=True)
        for name, size, samples, digest in rows:
            line = f"{name}\0{size}\0{samples}\0{digest.hex() if digest else '-'}\n"
            sha256.update(line.encode("utf-8", "surrogateescape"))
        return sha256.hexdigest()
