"""Packing a whole data set: in parallel, to the same bytes each time, and on from where it stopped.

While it is being packed, a folder holds `.packing/`: a lock, what is being packed, and a note of
each finished shard. A shard is a function of (data set, options, its number), so it does not matter
which process makes it, nor when. The manifest comes last; then `.packing/` goes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from simsiam_zoo.data.manifest import (
    MANIFEST,
    PACKING,
    ShardInfo,
    SplitInfo,
    index_path,
    read_manifest,
    read_packed,
    write_manifest,
)
from simsiam_zoo.data.order import derive_key, keyed_order
from simsiam_zoo.data.packing.writer import (
    JPEG_QUALITY,
    Original,
    PackedSample,
    stored_form,
    write_shard,
)
from simsiam_zoo.data.processes import run_tasks
from simsiam_zoo.data.stated import sha256
from simsiam_zoo.errors import DataError, InputError
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
class PackNote:
    """One finished shard."""

    shard: ShardInfo
    damaged: tuple[tuple[str, str], ...]  # (name in the source, what is wrong)


class PackTask:
    """A data set, how to pack it, and into which shards of which folder. Sent to workers whole."""

    def __init__(self, original: Original, folder: Path, options: PackOptions) -> None:
        self.original, self.folder, self.options = original, folder, options
        self.chunks = tuple(self._chunks())

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

    def run(self, number: int) -> PackNote:
        """Make one shard, unless it is there and whole."""
        chunk = self.chunks[number]
        path, note = self.folder / chunk.name, self.folder / PACKING / f"{chunk.name}.json"
        record = _finished(path, note)
        if record is None:
            damaged: list[tuple[str, str]] = []
            shard = write_shard(path, self._samples(chunk, damaged))
            record = PackNote(shard, tuple(damaged))
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
                form, image = stored_form(split.read(i), self.options.resize_short)
            except DataError as error:
                damaged.append((split.name(i), error.what))
            except OSError as error:
                raise DataError(
                    f"{split.name(i)} cannot be read: {error.strerror}",
                    "Say the same again when it can: packing goes on where it stopped.",
                ) from None
            else:
                yield PackedSample(split.key(i), image, form, int(split.labels[i]))


def _finished(path: Path, note: Path) -> PackNote | None:
    """The record of a shard that is there and whole, checked byte by byte."""
    try:
        content = json.loads(note.read_text())
        shard = ShardInfo(**content["shard"])
        whole = index_path(path).is_file() and sha256(path) == shard.sha256
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return PackNote(shard, tuple((n, r) for n, r in content["damaged"])) if whole else None


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


DAMAGED = "damaged.jsonl"
"""Lists what was not packed: one JSON object a line with split, name and reason."""


@dataclass(frozen=True)
class Packed:
    """What packing left behind.

    Attributes:
        splits: as in the manifest.
        damaged: images that were not packed.
        already: all of it was there before.
    """

    splits: Mapping[str, SplitInfo]
    damaged: int
    already: bool = False


def pack_original(
    original: Original,
    folder: Path,
    options: PackOptions,
    jobs: int = 1,
    progress: Callable[[int], bool] = lambda samples: False,
) -> Packed | None:
    """Pack a data set into a new folder, or go on where an earlier call was interrupted.

    Args:
        original: what to pack.
        folder: new or empty, or one that the same call began or finished before.
        options: how.
        jobs: processes; they do not change a byte.
        progress: told the images that were dealt with so far; if it answers True, packing stops
            after the shards at hand.

    Returns:
        What was packed, or None where `progress` stopped it.

    Raises:
        InputError: the folder holds something else, is being packed into, or cannot be written.
        DataError: no image can be decoded, or a worker died.
    """
    job = PackTask(original, folder, options)
    description = job.description()
    try:
        done = _open_folder(folder, description, original.classes)
        if done is not None:
            return done
        with FileLock(folder / PACKING / "lock", timeout=0):
            _begin(job, description)
            return _run(job, description, jobs, progress)
    except Timeout:
        raise InputError(f"{folder} is being packed into by another process") from None
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from None


def _open_folder(
    folder: Path, description: Mapping[str, Any], classes: tuple[str, ...] | None
) -> Packed | None:
    """Make the folder ready, or tell what was packed into it before. Raises InputError."""
    if (folder / PACKING).is_dir():
        return None
    if (folder / MANIFEST).is_file():
        packed = dict(read_packed(folder) or {})
        damaged = packed.pop("damaged", {})
        splits = read_manifest(folder)
        if packed != description or splits is None:
            raise InputError(
                f"{folder} holds shards already{_difference(packed, description)}",
                "Name another folder, or delete this one.",
            )
        for split in splits.values():
            for shard in split.shards:
                if (folder / shard.name).stat().st_size != shard.bytes:
                    raise InputError(
                        f"{folder / shard.name} changed since it was packed", "Delete the folder."
                    )
        if any(split.classes != classes for split in splits.values()):  # they got other names
            splits = {name: replace(split, classes=classes) for name, split in splits.items()}
            write_manifest(folder, splits, {**description, "damaged": damaged})
        return Packed(splits, sum(damaged.values()), already=True)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is no empty folder", "Name a new one.")
    (folder / PACKING).mkdir(parents=True, exist_ok=True)
    return None


def _begin(job: PackTask, description: Mapping[str, Any]) -> None:
    """Note what is being packed, or check that it is what was begun. Raises InputError."""
    note = job.folder / PACKING / "job.json"
    if note.exists():
        begun = json.loads(note.read_text())
        if begun != description:
            raise InputError(
                f"{job.folder} holds what an interrupted packing left"
                f"{_difference(begun, description)}",
                "Say the same as then to go on with it, or name another folder.",
            )
    else:
        free = shutil.disk_usage(job.folder).free
        if job.options.resize_short is None and job.bytes > free:
            raise InputError(
                f"the shards need about {job.bytes:,} bytes, and {job.folder} has {free:,} free"
            )
        atomic_write_text(note, json.dumps(description) + "\n")
    for left in job.folder.glob(".*.tmp"):  # by a process that was killed
        left.unlink()


def _run(
    job: PackTask, description: Mapping[str, Any], jobs: int, progress: Callable[[int], bool]
) -> Packed | None:
    records: dict[int, PackNote] = {}
    done = 0
    results = run_tasks(job, len(job.chunks), jobs)
    try:
        for number, record in results:
            records[number] = record
            done += len(job.chunks[number].images)
            if progress(done) and len(records) < len(job.chunks):
                return None
    finally:
        results.close()
    return _finish(job, description, [records[number] for number in range(len(job.chunks))])


def _finish(job: PackTask, description: Mapping[str, Any], records: list[PackNote]) -> Packed:
    """The list of damaged images, then the manifest, which makes the folder a data set."""
    pairs = list(zip(job.chunks, records, strict=True))
    lines = [
        json.dumps({"split": chunk.split, "name": name, "reason": reason}) + "\n"
        for chunk, record in pairs
        for name, reason in record.damaged
    ]
    damaged = {
        name: sum(len(record.damaged) for chunk, record in pairs if chunk.split == name)
        for name in job.original.splits
    }
    shards = {
        name: tuple(record.shard for chunk, record in pairs if chunk.split == name)
        for name in job.original.splits
    }
    splits = {name: SplitInfo(found, job.original.classes) for name, found in shards.items()}
    for name, split in splits.items():
        if len(job.original.splits[name]) and not split.samples:
            for chunk in job.chunks:  # nothing is left that could pass for a data set
                (job.folder / chunk.name).unlink(missing_ok=True)
                index_path(job.folder / chunk.name).unlink(missing_ok=True)
            shutil.rmtree(job.folder / PACKING)
            first = next(line for line in lines if json.loads(line)["split"] == name)
            raise DataError(
                f"none of the {damaged[name]:,} images of {name} can be decoded; the first:"
                f" {first.strip()}"
            )
    if lines:
        atomic_write_text(job.folder / DAMAGED, "".join(lines))
    write_manifest(job.folder, splits, {**description, "damaged": damaged})
    # At once, and then at leisure: killed in between, a half of it would mean an unfinished folder.
    shutil.rmtree((job.folder / PACKING).rename(job.folder / ".packed"))
    return Packed(splits, len(lines))


def _difference(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    keys = sorted(key for key in there.keys() | wanted.keys() if there.get(key) != wanted.get(key))
    return f", which differ in {', '.join(keys)}" if there and keys else ""
