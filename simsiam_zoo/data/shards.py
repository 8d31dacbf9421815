"""The samples of some shards, read at random: a dense id gives a key, an image and a label.

The shards of a set are kept as columns: some hundred bytes each, where objects take thousands.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, overload
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.data.index import MAX_IMAGE_BYTES, Findings, ImageError, ShardIndex, load_index
from simsiam_zoo.data.manifest import index_path
from simsiam_zoo.data.remote.cache import RemoteShard, ShardCache
from simsiam_zoo.data.remote.urls import redacted
from simsiam_zoo.data.tar import TAR_BLOCK, is_member
from simsiam_zoo.errors import DataError
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


class ShardRow(NamedTuple):
    """What a table keeps of one shard.

    Attributes:
        location: its path or URL.
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
            self._versions.append("" if row.sha256 else row.version)
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
        calls its version (its URL, where the server tells none).
        """
        sha256 = hashlib.sha256()
        for i, name in enumerate(self._names):
            digest, version = self._digests[i], self._versions[i]
            mark = digest.hex() if digest else version
            if not digest and (self._cache is None or not version):
                where = self._folders[self._folder_of[i]] + name
                mark += "\0" + (where if self._cache else os.path.abspath(where))
            line = f"{name}\0{self.bytes[i]}\0{self.samples[i]}\0{mark}\n"
            sha256.update(line.encode("utf-8", "surrogateescape"))
        return sha256.hexdigest()


MAX_CLASSES = 1 << 20
"""Labels that nobody names are below it: a classifier of more would not fit in memory."""

MAX_OPEN_SHARDS = 64
"""Shards that one process keeps open (a descriptor and an index each)."""

_READS_PER_SWEEP = 64


class Sample(NamedTuple):
    """One stored sample. `image` is the encoded file; `label` is -1 where there is none."""

    key: str
    image: memoryview
    label: int


@dataclass(frozen=True, slots=True)
class _Opened:
    descriptor: int
    index: ShardIndex
    labels: NDArray[np.int64]


class ShardSet:
    """The samples of some shards, 0 to n - 1 in the shards' order (a sample's *dense id*).

    Files are opened when they are first read, in each process of its own: a ShardSet can be sent
    to workers. Samples are read with `os.pread` at indexed offsets, and the tar header found there
    must be the one that was indexed. Remote shards are fetched into `cache` when they are opened.

    Attributes:
        shards: in order.
        offsets: the dense id of each shard's first sample; one more at the end, n. int64.
        classes: names of the labels 0, 1, ..., where known.
        cache: where remote shards are fetched into; None for shards on disk.
    """

    def __init__(
        self,
        shards: ShardTable,
        classes: tuple[str, ...] | None = None,
        cache: ShardCache | None = None,
    ) -> None:
        self.shards = shards
        self.classes = classes
        self.cache = cache
        self._reads = 0
        self._fetched_again: set[int] = set()
        self.offsets = np.concatenate(([0], np.cumsum(shards.samples)))
        self._open: OrderedDict[int, _Opened] = OrderedDict()

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the shards that are open; reading opens them again."""
        for shard in list(self.__dict__.get("_open", ())):
            self._close(shard)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Of each shard."""
        return tuple(shard.path for shard in self.shards)

    @property
    def counts(self) -> tuple[int, ...]:
        """Samples of each shard."""
        return tuple(self.shards.samples.tolist())

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what tells this set from others (`ShardTable.digest`)."""
        return self.shards.digest()

    @property
    def digest_note(self) -> str | None:
        """What a run should say where `digest` does not stand for every byte; else None."""
        if not (count := self.shards.without_checksum):
            return None
        how = "their size and what their server calls their version"
        how = "their size and the time of their last change" if self.cache is None else how
        return (
            f"{count:,} of the {len(self.shards):,} shards have no checksum and are known by {how}"
            " only: `simsiam-zoo index --checksums` takes them"
        )

    def labels(self) -> NDArray[np.int64]:
        """All labels by dense id [n]; -1 where there is none."""
        with ThreadPoolExecutor(max_workers=4) as pool:  # a remote one may have to be fetched
            parts = list(pool.map(self._labels, range(len(self.shards))))
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def findings(self) -> list[Findings]:
        """What the scans of the shards met beside samples, where they met anything."""
        found = (self._index(number).findings for number in range(len(self.shards)))
        return [one for one in found if one != Findings()]

    def locate(self, id: int) -> tuple[int, int]:
        """The shard's number and the sample's in it. Raises IndexError."""
        if not 0 <= id < len(self):
            raise IndexError(f"no sample {id} among {len(self)}")
        shard = int(self.offsets.searchsorted(id, "right")) - 1
        return shard, id - int(self.offsets[shard])

    def name(self, id: int) -> str:
        """`shard: key`, as errors call a sample."""
        shard, i = self.locate(id)
        return f"{self.shards[shard].where}: {self._opened(shard).index.key(i)}"

    def read(self, id: int) -> Sample:
        """One sample.

        Raises:
            DataError: the shard is not what was indexed, or cannot be read.
        """
        shard, i = self.locate(id)
        self._reads += 1
        if self._reads % _READS_PER_SWEEP == 0:
            self._close_removed()
        try:
            return self._read(id, shard, i)
        except DataError:
            remote = self.shards[shard].remote
            if remote is None or self.cache is None or shard in self._fetched_again:
                raise
        self._fetched_again.add(shard)
        # The copy in the cache may be damaged, where the shard itself is not.
        self._close(shard)
        self.cache.discard(remote)
        return self._read(id, shard, i)

    def _read(self, id: int, shard: int, i: int) -> Sample:
        opened = self._opened(shard)
        index = opened.index
        offset, size = int(index.offsets[i]), int(index.sizes[i])
        if size > MAX_IMAGE_BYTES:
            raise DataError(f"{self.name(id)}: an image of {size} bytes is refused")
        try:
            content = os.pread(opened.descriptor, TAR_BLOCK + size, offset)
        except OSError as error:
            raise DataError(f"{self.name(id)} cannot be read: {error.strerror}") from None
        header, image = content[:TAR_BLOCK], memoryview(content)[TAR_BLOCK:]
        found = len(content) == TAR_BLOCK + size and crc32(header) == index.checks[i]
        if not (found and is_member(header, size)):
            raise DataError(
                f"{self.name(id)}: the tar changed at offset {offset} since it was indexed",
                "Restore the shard, or start again: a changed shard is indexed anew.",
            )
        if len(index.image_checks) and crc32(image) != index.image_checks[i]:
            raise ImageError("its bytes are not the ones that were indexed (checksum)")
        return Sample(index.key(i), image, int(opened.labels[i]))

    def _opened(self, shard: int) -> _Opened:
        opened = self._open.get(shard)
        if opened is not None:
            self._open.move_to_end(shard)
            return opened
        self._close_removed()
        index = self._index(shard)
        labels = index.resolved_labels(self.classes)
        self._open[shard] = opened = _Opened(self._descriptor(self.shards[shard]), index, labels)
        if len(self._open) > MAX_OPEN_SHARDS:
            self._close(next(iter(self._open)))
        return opened

    def _close(self, shard: int) -> None:
        if (opened := self._open.pop(shard, None)) is not None:
            os.close(opened.descriptor)

    def _labels(self, number: int) -> NDArray[np.int64]:
        return self._index(number).resolved_labels(self.classes)

    def _index(self, number: int) -> ShardIndex:
        shard = self.shards[number]
        if shard.remote is not None and self.cache is not None and not shard.index.is_file():
            os.close(self.cache.open(shard.remote))
        index = load_index(shard.index, shard.bytes)
        if len(index) != shard.samples:
            raise DataError(f"{shard.where} holds {len(index)} samples, not {shard.samples}")
        classes = MAX_CLASSES if self.classes is None else len(self.classes)
        if (index.labels >= classes).any():
            raise DataError(f"{shard.where} has labels over its {classes} classes")
        return index

    def _descriptor(self, shard: Shard) -> int:
        if shard.remote is not None and self.cache is not None:
            return self.cache.open(shard.remote)
        try:
            return os.open(shard.path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{shard.where} cannot be opened: {error.strerror}") from None

    def _close_removed(self) -> None:
        """Close what was removed from the cache: while it is open, its space is not free."""
        if self.cache is not None:
            for shard, opened in list(self._open.items()):
                if not os.fstat(opened.descriptor).st_nlink:
                    self._close(shard)


@dataclass(frozen=True)
class Dataset:
    """What a dataset component gives: shards to train on, shards to test on, class names.

    `notes` are what a person should know before training: images that are not read, say.
    """

    train: ShardSet
    test: ShardSet | None = None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
