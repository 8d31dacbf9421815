"""What packing makes: which images become which shard, and one shard at a time."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.data.keyed import derive_key, keyed_order
from simsiam_zoo.data.manifest import PACKING, ShardInfo, index_path
from simsiam_zoo.data.packing.encode import JPEG_QUALITY, prepare
from simsiam_zoo.data.packing.originals import Original
from simsiam_zoo.data.packing.writer import PackedSample, sha256, write_shard
from simsiam_zoo.errors import DataError
from simsiam_zoo.runtime.folders import atomic_write_text

_VERSION = 1  # of the bytes that are written
_ORDER = 0x5041434B  # what a key is drawn for: "PACK"
_LABEL_BYTES = 1024  # a label's member in a tar


@dataclass(frozen=True)
class PackOptions:
    """How to pack. All of it is recorded in the manifest.

    Attributes:
        seed: of the order of the images across shards.
        shard_samples: images per shard, damaged ones included.
        shard_bytes: in place of it, the most bytes per shard, by the sizes of the source's images.
        resize_short: larger images are shrunk to this short side in pixels; None keeps all bytes.
        limit: pack only that many images of each split, the first in the shuffled order.
    """

    seed: int = 0
    shard_samples: int = 1000
    shard_bytes: int | None = None
    resize_short: int | None = None
    limit: int | None = None


class Chunk(NamedTuple):
    """One shard to be: which images of which split."""

    split: str
    name: str
    images: NDArray[np.int64]


@dataclass(frozen=True)
class Record:
    """One finished shard."""

    shard: ShardInfo
    damaged: tuple[tuple[str, str], ...]  # (name in the source, what is wrong)


class Job:
    """A data set, how to pack it, and into which shards of which folder. Sent to workers whole."""

    def __init__(self, original: Original, folder: Path, options: PackOptions) -> None:
        self.original, self.folder, self.options = original, folder, options
        self.chunks = tuple(self._chunks())

    @property
    def samples(self) -> int:
        """Images to be packed, damaged ones included."""
        return sum(len(chunk.images) for chunk in self.chunks)

    @property
    def bytes(self) -> int:
        """About what the shards will fill, from what is known before reading."""
        splits = self.original.splits
        return sum(int(_in_tar(splits[c.split].sizes[c.images]).sum()) for c in self.chunks)

    def description(self) -> dict[str, Any]:
        """What decides the bytes, for the manifest; of the source what it holds, not where."""
        listing = hashlib.sha256()
        for name, split in self.original.splits.items():
            listing.update("\0".join([name, *map(split.name, range(len(split)))]).encode())
            listing.update(split.labels.tobytes() + split.sizes.tobytes())
        options = {key: value for key, value in asdict(self.options).items() if value is not None}
        if "shard_bytes" in options:
            del options["shard_samples"]
        if "resize_short" in options:
            options["jpeg_quality"] = JPEG_QUALITY
        return {
            "source": self.original.kind,
            "images": {name: len(split) for name, split in self.original.splits.items()},
            "listing": listing.hexdigest()[:16],
            **options,
            "version": _VERSION,
        }

    def run(self, number: int) -> Record:
        """Make one shard, unless it is there and whole."""
        chunk = self.chunks[number]
        path, note = self.folder / chunk.name, self.folder / PACKING / f"{chunk.name}.json"
        record = _finished(path, note)
        if record is None:
            damaged: list[tuple[str, str]] = []
            shard = write_shard(path, self._samples(chunk, damaged))
            record = Record(shard, tuple(damaged))
            atomic_write_text(note, json.dumps(asdict(record)) + "\n")
        return record

    def _chunks(self) -> Iterator[Chunk]:
        for name, split in self.original.splits.items():
            key = derive_key(self.options.seed, _ORDER, zlib.crc32(name.encode()))
            order = keyed_order(np.arange(len(split)), key)[: self.options.limit]
            starts = np.arange(0, len(order), self.options.shard_samples)
            if self.options.shard_bytes is not None:
                starts = _starts(_in_tar(split.sizes[order]), self.options.shard_bytes)
            for number, images in enumerate(np.split(order, starts[1:]) if len(order) else ()):
                yield Chunk(name, f"{name}-{number:06d}.tar", images)

    def _samples(self, chunk: Chunk, damaged: list[tuple[str, str]]) -> Iterator[PackedSample]:
        split = self.original.splits[chunk.split]
        for i in chunk.images.tolist():
            try:
                form, image = prepare(split.read(i), self.options.resize_short)
            except DataError as error:
                damaged.append((split.name(i), error.what))
            except OSError as error:
                raise DataError(
                    f"{split.name(i)} cannot be read: {error.strerror}",
                    "Say the same again when it can: packing goes on where it stopped.",
                ) from None
            else:
                yield PackedSample(split.key(i), image, form, int(split.labels[i]))


def _finished(path: Path, note: Path) -> Record | None:
    """The record of a shard that is there and whole, checked byte by byte."""
    try:
        content = json.loads(note.read_text())
        shard = ShardInfo(**content["shard"])
        whole = index_path(path).is_file() and sha256(path) == shard.sha256
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Record(shard, tuple((n, r) for n, r in content["damaged"])) if whole else None


def _in_tar(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bytes that images of these sizes fill in a tar, with their labels: blocks of 512."""
    return (sizes + 511) // 512 * 512 + 512 + _LABEL_BYTES


def _starts(sizes: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Where shards of at most `most` bytes start (one image at least)."""
    ends = np.cumsum(sizes)
    starts, begin = [0], 0
    while begin < len(sizes):
        before = int(ends[begin - 1]) if begin else 0
        begin = max(begin + 1, int(np.searchsorted(ends, before + most, side="right")))
        starts.append(begin)
    return np.array(starts[:-1], np.int64)
