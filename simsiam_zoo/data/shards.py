"""The samples of some shards, read at random: a dense id gives a key, an image and a label."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.data.index import MAX_IMAGE_BYTES, Findings, ImageError, ShardIndex, load_index
from simsiam_zoo.data.remote.cache import ShardCache
from simsiam_zoo.data.stated import Shard, digest_of
from simsiam_zoo.data.tar import TAR_BLOCK, is_member
from simsiam_zoo.errors import DataError

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
    must be the one that was indexed. Remote shards are fetched into `cache` when they are opened;
    it is None for shards on disk. `bytes` are those of each shard, `offsets` the dense ids of each
    shard's first sample and n, `classes` the names of the labels 0, 1, ..., where known.
    """

    channels = 3
    """Of the images, as a run reads them (`decode.decode_as`)."""

    def __init__(
        self,
        shards: Iterable[Shard],
        classes: tuple[str, ...] | None = None,
        cache: ShardCache | None = None,
    ) -> None:
        self.shards = tuple(shards)
        self.classes = classes
        self.cache = cache
        self._reads = 0
        self._fetched_again: set[int] = set()
        self.bytes = np.array([shard.bytes for shard in self.shards], np.int64)
        self.offsets = np.cumsum([0, *(shard.samples for shard in self.shards)], dtype=np.int64)
        self._open: OrderedDict[int, _Opened] = OrderedDict()

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ending():  # else `os` may be gone, and the files are closed without it
            self.close()

    def close(self) -> None:
        """Close the shards that are open; reading opens them again."""
        for shard in list(self.__dict__.get("_open", ())):
            self._close(shard)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Of each shard; where a remote one is once it was fetched."""
        if self.cache is not None:
            return tuple(self.cache.path(shard) for shard in self.shards)
        return tuple(Path(shard.location) for shard in self.shards)

    @property
    def counts(self) -> tuple[int, ...]:
        """Samples of each shard."""
        return tuple(np.diff(self.offsets).tolist())

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what tells this set from others (`stated.digest_of`)."""
        return digest_of(self.shards, remote=self.cache is not None)

    @property
    def digest_note(self) -> str | None:
        """What a run should say where `digest` does not stand for every byte; else None."""
        if not (count := sum(shard.sha256 is None for shard in self.shards)):
            return None
        how = "the time of their last change"
        if self.cache is not None:
            how = "what their server calls their version"
        return (
            f"{count:,} of the {len(self.shards):,} shards have no checksum and are known by their"
            f" size and {how} only: `simsiam-zoo index --checksums` takes them"
        )

    def labels(self) -> NDArray[np.int64]:
        """All labels by dense id [n]; -1 where there is none."""
        with ThreadPoolExecutor(max_workers=4) as pool:  # a remote one may have to be fetched
            places = range(len(self.shards))
            parts = pool.map(lambda n: self._index(n).resolved_labels(self.classes), places)
            return np.concatenate([np.empty(0, np.int64), *parts])

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
        """`shard: key`, as errors call a sample; its place where the shard cannot be opened."""
        shard, i = self.locate(id)
        try:
            key = self._opened(shard).index.key(i)
        except DataError:
            key = f"sample {i}"
        return f"{self.shards[shard].where}: {key}"

    def read(self, id: int) -> Sample:
        """One sample. Raises DataError where its shard is not what was indexed or cannot be had."""
        shard, i = self.locate(id)
        self._reads += 1
        if self._reads % _READS_PER_SWEEP == 0:
            self._close_removed()
        try:
            return self._read(id, shard, i)
        except DataError:
            if self.cache is None or shard in self._fetched_again:
                raise
        self._fetched_again.add(shard)
        # The copy in the cache may be damaged, where the shard itself is not.
        self._close(shard)
        self.cache.discard(self.shards[shard])
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

    def _index(self, number: int) -> ShardIndex:
        shard = self.shards[number]
        path = shard.index if self.cache is None else self.cache.index(shard)
        if self.cache is not None and not path.is_file():
            os.close(self.cache.open(shard))
        index = load_index(path, shard.bytes)
        if len(index) != shard.samples:
            raise DataError(f"{shard.where} holds {len(index)} samples, not {shard.samples}")
        classes = MAX_CLASSES if self.classes is None else len(self.classes)
        if (index.labels >= classes).any():
            raise DataError(f"{shard.where} has labels over its {classes} classes")
        return index

    def _descriptor(self, shard: Shard) -> int:
        if self.cache is not None:
            return self.cache.open(shard)
        try:
            return os.open(shard.location, os.O_RDONLY)
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
    `measured_on`: what `test` holds, `test` images or a `validation` part of the training images.
    """

    train: ShardSet
    test: ShardSet | None = None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    measured_on: str = "test"

    def of_channels(self, channels: int) -> Dataset:
        """The same data set, whose images are read as images of so many channels."""
        for shards in (self.train, self.test):
            if shards is not None:
                shards.channels = channels
        return self

    @property
    def digest(self) -> str:
        """What stands for the data (16 hex digits) wherever it is said to be the same."""
        digests = [self.train.digest, self.test.digest if self.test else "none"]
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16]
