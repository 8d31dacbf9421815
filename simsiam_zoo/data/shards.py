"""A set of shards, read at random: a dense id gives a key, an encoded image and a label."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.data.index import MAX_IMAGE_BYTES, ShardIndex, load_index, scan
from simsiam_zoo.data.manifest import ShardInfo, SplitInfo, index_path, read_manifest
from simsiam_zoo.data.remote.cache import RemoteShard, ShardCache
from simsiam_zoo.data.remote.listing import RemoteSplit, find_remote
from simsiam_zoo.data.remote.urls import redacted
from simsiam_zoo.data.sources import find_shards, is_remote
from simsiam_zoo.data.tar import BLOCK, is_member
from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.runtime.folders import atomic_write, cache_dir

MAX_CLASSES = 1 << 20
"""Labels that nobody names are below it: a classifier of more would not fit in memory."""

MAX_OPEN_SHARDS = 64
"""Shards that one process keeps open (a descriptor and an index each)."""

_READS_PER_SWEEP = 64


class Sample(NamedTuple):
    """One stored sample. `image` is the encoded file; `label` is -1 where there is none.

    `check` is the CRC-32 that `image` had when it was indexed; None where the index keeps none.
    """

    key: str
    image: memoryview
    label: int
    check: int | None = None


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


class ShardSet:
    """The samples of some shards, 0 to n - 1 in the shards' order (a sample's *dense id*).

    Files are opened when they are first read, in each process of its own: a ShardSet can be sent
    to workers. Samples are read with `os.pread` at indexed offsets, and the tar header found there
    must be the one that was indexed. Remote shards are fetched into `cache` when they are opened.

    Attributes:
        shards: in order.
        paths, counts: of each shard.
        offsets: the dense id of each shard's first sample; one more at the end, n.
        classes: names of the labels 0, 1, ..., where known.
        cache: where remote shards are fetched into; None for shards on disk.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        classes: tuple[str, ...] | None = None,
        cache: ShardCache | None = None,
    ) -> None:
        self.shards = tuple(shards)
        self.classes = classes
        self.cache = cache
        self._reads = 0
        self.paths = tuple(shard.path for shard in self.shards)
        self.counts = tuple(shard.samples for shard in self.shards)
        self.offsets = [0]
        for count in self.counts:
            self.offsets.append(self.offsets[-1] + count)
        self._open: OrderedDict[int, tuple[int, ShardIndex]] = OrderedDict()

    def __len__(self) -> int:
        return self.offsets[-1]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the shards that are open; reading opens them again."""
        for descriptor, _ in self.__dict__.get("_open", {}).values():
            os.close(descriptor)
        self.__dict__.get("_open", {}).clear()

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over names, sizes, counts and known checksums; never over locations."""
        lines = [f"{s.name}\0{s.bytes}\0{s.samples}\0{s.sha256 or '-'}\n" for s in self.shards]
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def labels(self) -> NDArray[np.int64]:
        """All labels by dense id [n]; -1 where there is none."""
        with ThreadPoolExecutor(max_workers=4) as pool:  # a remote one may have to be fetched
            parts = list(pool.map(lambda i: self._index(i).labels, range(len(self.shards))))
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def locate(self, id: int) -> tuple[int, int]:
        """The shard's place and the sample's place in it. Raises IndexError."""
        if not 0 <= id < len(self):
            raise IndexError(f"no sample {id} among {len(self)}")
        shard = bisect_right(self.offsets, id) - 1
        return shard, id - self.offsets[shard]

    def name(self, id: int) -> str:
        """`shard: key`, as errors call a sample."""
        shard, i = self.locate(id)
        return f"{self.shards[shard].where}: {self._opened(shard)[1].key(i)}"

    def read(self, id: int) -> Sample:
        """One sample.

        Raises:
            DataError: the shard is not what was indexed, or cannot be read.
        """
        shard, i = self.locate(id)
        self._reads += 1
        if self._reads % _READS_PER_SWEEP == 0:
            self._let_go_of_removed()
        descriptor, index = self._opened(shard)
        offset, size = int(index.offsets[i]), int(index.sizes[i])
        if size > MAX_IMAGE_BYTES:
            raise DataError(f"{self.name(id)}: an image of {size} bytes is refused")
        try:
            content = os.pread(descriptor, BLOCK + size, offset)
        except OSError as error:
            raise DataError(f"{self.name(id)} cannot be read: {error.strerror}") from None
        header = content[:BLOCK]
        found = len(content) == BLOCK + size and crc32(header) == index.checks[i]
        if not (found and is_member(header, size)):
            raise DataError(
                f"{self.name(id)}: the tar changed at offset {offset} since it was indexed",
                "Restore the shard, or start again: a changed shard is indexed anew.",
            )
        check = int(index.image_checks[i]) if len(index.image_checks) else None
        return Sample(index.key(i), memoryview(content)[BLOCK:], int(index.labels[i]), check)

    def _opened(self, place: int) -> tuple[int, ShardIndex]:
        opened = self._open.get(place)
        if opened is not None:
            self._open.move_to_end(place)
            return opened
        self._let_go_of_removed()
        index = self._index(place)
        self._open[place] = opened = (self._descriptor(self.shards[place]), index)
        if len(self._open) > MAX_OPEN_SHARDS:
            os.close(self._open.popitem(last=False)[1][0])
        return opened

    def _index(self, place: int) -> ShardIndex:
        shard = self.shards[place]
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

    def _let_go_of_removed(self) -> None:
        """Close what was removed from the cache: while it is open, its space is not free."""
        if self.cache is None:
            return
        for place, (descriptor, _) in list(self._open.items()):
            if not os.fstat(descriptor).st_nlink:
                os.close(descriptor)
                del self._open[place]


@dataclass(frozen=True)
class Dataset:
    """What a dataset component gives: shards to train on, shards to test on, class names."""

    train: ShardSet
    test: ShardSet | None = None
    classes: tuple[str, ...] | None = None


def open_shards(source: str, test: str = "") -> Dataset:
    """The data that a folder, a tar, a glob, a brace pattern or a URL names (see `sources`).

    Of remote shards nothing is read yet but what is stated beside them.

    Args:
        source: the shards; a folder may hold test shards too.
        test: another source of test shards: those in it that are named so, else all.

    Raises:
        InputError: there is nothing to read, or its counts are not known.
        DataError: a shard is damaged, or what is remote cannot be had.
    """
    for_training, for_test = _open(source)
    if test:
        train_of_test, test_of_test = _open(test)
        for_test = test_of_test or train_of_test
    return Dataset(for_training, for_test, for_training.classes)


def _open(source: str) -> tuple[ShardSet, ShardSet | None]:
    if is_remote(source):
        train, test = find_remote(source)
        return _remote_set(train, source), _remote_set(test, source) if test else None
    train_paths, test_paths = find_shards(source)
    return _shard_set(train_paths, source), _shard_set(test_paths, source) if test_paths else None


def _remote_set(split: RemoteSplit, source: str) -> ShardSet:
    if not sum(shard.samples for shard in split.shards):
        raise InputError(f"{redacted(source)} holds no images, as is stated there")
    cache = ShardCache()
    shards = [
        Shard(cache.path(s), s.samples, s.bytes, s.sha256, cache.index(s), s) for s in split.shards
    ]
    return ShardSet(shards, split.classes, cache)


def _shard_set(paths: list[Path], source: str) -> ShardSet:
    stated: dict[Path, tuple[ShardInfo, SplitInfo]] = {}
    for folder in {path.parent for path in paths}:
        for split in (read_manifest(folder) or {}).values():
            stated |= {folder / shard.name: (shard, split) for shard in split.shards}
    with ThreadPoolExecutor(max_workers=8) as pool:  # a scan waits for the disk
        shards = list(pool.map(lambda p: _find(p, stated[p][0] if p in stated else None), paths))
    if not sum(shard.samples for shard in shards):
        raise InputError(f"{source} holds no images: looked for members .jpg, .jpeg, .png, .webp")
    classes = {stated[path][1].classes if path in stated else None for path in paths}
    return ShardSet(shards, classes.pop() if len(classes) == 1 else None)


def _find(path: Path, stated: ShardInfo | None) -> Shard:
    """What is known of the shard at `path`: from its manifest, or by scanning it once."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"the shard {path} cannot be read: {error.strerror}") from None
    if stated is None:
        index, samples = _cached_index(path, status)
        return Shard(path, samples, status.st_size, None, index)
    if status.st_size != stated.bytes:
        raise DataError(
            f"{path} has {status.st_size} bytes, its manifest states {stated.bytes}",
            "Copy or pack the shard again.",
        )
    index = index_path(path)
    if not index.is_file():  # copied without it
        index, _ = _cached_index(path, status)
    return Shard(path, stated.samples, stated.bytes, stated.sha256, index)


def _cached_index(path: Path, status: os.stat_result) -> tuple[Path, int]:
    """The index of a shard in the user's cache (the shard's folder may be read-only), its length.

    It is found by the shard's path, size and time: a shard that changed is indexed anew.
    """
    identity = f"{path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}"
    name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    cached = cache_dir() / "indexes" / f"{name}.npz"
    try:
        return cached, len(load_index(cached, status.st_size))
    except DataError:  # missing, damaged or of another version
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
    return cached, len(index)
