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
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
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
from simsiam_zoo.errors import DataError, InputError, StoppedError
from simsiam_zoo.runtime.folders import atomic_write_text, unwritable
from simsiam_zoo.runtime.progress import Progress, StopRequest

DAMAGED = "damaged.jsonl"
"""Lists what was not packed: one JSON object a line with split, name and reason."""

_VERSION = 1  # of the bytes that are written
_ORDER = 0x5041434B  # what a key is drawn for: "PACK"


@dataclass(frozen=True)
class PackOptions:
    """How to pack. All of it is recorded in the manifest."""

    seed: int = 0  # of the order of the images across shards
    shard_samples: int = 1000  # damaged ones included
    resize_short: int | None = None  # in pixels; None keeps all bytes
    limit: int | None = None  # images of each split, the first in the shuffled order


@dataclass(frozen=True)
class Packed:
    """What packing left behind."""

    splits: Mapping[str, SplitInfo]
    damaged: int  # images that were not packed
    already: bool = False  # all of it was there before


class Chunk(NamedTuple):
    """One shard to be: which images of which split."""

    split: str
    name: str
    images: NDArray[np.int64]


@dataclass(frozen=True)
class PackNote:
    """One finished shard."""

    shard: ShardInfo
    damaged: list[dict[str, str]]  # split, name in the source, reason


class PackTask:
    """A data set, how to pack it, and into which shards of which folder. Sent to workers whole."""

    def __init__(self, original: Original, folder: Path, options: PackOptions) -> None:
        self.original, self.folder, self.options = original, folder, options
        self.chunks: list[Chunk] = []
        for name, split in original.splits.items():
            key = derive_key(options.seed, _ORDER, zlib.crc32(name.encode()))
            order = keyed_order(np.arange(len(split)), key)[: options.limit]
            for number, start in enumerate(range(0, len(order), options.shard_samples)):
                images = order[start : start + options.shard_samples]
                self.chunks.append(Chunk(name, f"{name}-{number:06d}.tar", images))

    def description(self) -> dict[str, Any]:
        """What decides the bytes, for the manifest; of the source what it holds, not where."""
        listing = hashlib.sha256()
        for name, split in self.original.splits.items():
            listing.update("\0".join([name, *map(split.name, range(len(split)))]).encode())
            listing.update(split.labels.tobytes() + split.sizes.tobytes())
        listing.update(repr(self.original.classes).encode())
        options = {key: value for key, value in asdict(self.options).items() if value is not None}
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
        path, file = self.folder / chunk.name, self.folder / PACKING / f"{chunk.name}.json"
        note = _finished(path, file)
        if note is None:
            damaged: list[dict[str, str]] = []
            note = PackNote(write_shard(path, self._samples(chunk, damaged)), damaged)
            atomic_write_text(file, json.dumps(asdict(note)) + "\n")
        return note

    def _samples(self, chunk: Chunk, damaged: list[dict[str, str]]) -> Iterator[PackedSample]:
        split = self.original.splits[chunk.split]
        for i in chunk.images.tolist():
            try:
                form, image = stored_form(split.read(i), self.options.resize_short)
            except DataError as error:
                damaged.append({"split": chunk.split, "name": split.name(i), "reason": error.what})
            except OSError as error:
                raise DataError(
                    f"{split.name(i)} cannot be read: {error.strerror}",
                    "Say the same again when it can: packing goes on where it stopped.",
                ) from None
            else:
                yield PackedSample(split.key(i), image, form, int(split.labels[i]))


def _finished(path: Path, file: Path) -> PackNote | None:
    """The note of a shard that is there and whole, checked byte by byte."""
    try:
        content = json.loads(file.read_text())
        shard = ShardInfo(**content["shard"])
        whole = index_path(path).is_file() and sha256(path) == shard.sha256
    except (OSError, ValueError, KeyError, TypeError, DataError):
        return None
    return PackNote(shard, content["damaged"]) if whole else None


def pack_original(
    original: Original,
    folder: Path,
    options: PackOptions,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Packed:
    """Pack a data set into a new folder, or go on where the same call was interrupted before.

    The number of processes, `jobs`, does not change a byte. `progress` is told the data set's notes
    and how many images were dealt with.

    Raises:
        InputError: the folder holds something else, is being packed into, or cannot be written.
        DataError: no image can be decoded, or a worker died.
        StoppedError: a signal asked to stop; the shards at hand were finished.
    """
    with StopRequest() as stop, progress or Progress() as progress:
        for note in original.notes:
            progress.say(f"note: {note}")
        task = PackTask(original, folder, options)
        description = task.description()
        try:
            if not (folder / PACKING).is_dir():
                if (folder / MANIFEST).is_file():
                    return _packed_before(folder, description)
                if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                    raise InputError(f"{folder} is no empty folder", "Name a new one.")
                (folder / PACKING).mkdir(parents=True, exist_ok=True)
            with FileLock(folder / PACKING / "lock", timeout=0):
                _begin(folder, description)
                return _finish(task, description, _make_shards(task, jobs, progress, stop))
        except Timeout:
            raise InputError(f"{folder} is being packed into by another process") from None
        except OSError as error:
            raise unwritable(folder, error) from None


def _packed_before(folder: Path, description: Mapping[str, Any]) -> Packed:
    """What was packed into the folder before. Raises InputError where it is something else."""
    packed = dict(read_packed(folder) or {})
    damaged = packed.pop("damaged", {})
    splits = read_manifest(folder)
    if packed != description or splits is None:
        raise InputError(
            f"{folder} holds shards already{_difference(packed, description)}",
            "Name another folder, or delete this one.",
        )
    return Packed(splits, sum(damaged.values()), already=True)


def _begin(folder: Path, description: Mapping[str, Any]) -> None:
    """Note what is being packed, or check that it is what was begun. Raises InputError."""
    note = folder / PACKING / "job.json"
    if not note.exists():
        atomic_write_text(note, json.dumps(description) + "\n")
    elif (begun := json.loads(note.read_text())) != description:
        raise InputError(
            f"{folder} holds what an interrupted packing left{_difference(begun, description)}",
            "Say the same as then to go on with it, or name another folder.",
        )
    for left in folder.glob(".*.tmp"):  # by a process that was killed
        left.unlink()


def _make_shards(
    task: PackTask, jobs: int, progress: Progress, stop: StopRequest
) -> list[PackNote]:
    """A note of each shard, in order. Raises StoppedError."""
    notes: dict[int, PackNote] = {}
    done = 0
    progress.begin("images packed", sum(len(chunk.images) for chunk in task.chunks))
    with closing(run_tasks(task.run, len(task.chunks), jobs)) as results:
        for number, note in results:
            notes[number] = note
            done += len(task.chunks[number].images)
            progress.advance(done)
            if stop.requested and len(notes) < len(task.chunks):
                raise StoppedError("packing was stopped", "The same command again goes on.")
    return [notes[number] for number in range(len(task.chunks))]


def _finish(task: PackTask, description: Mapping[str, Any], notes: list[PackNote]) -> Packed:
    """The list of damaged images, then the manifest, which makes the folder a data set."""
    folder = task.folder
    damaged = [one for note in notes for one in note.damaged]
    shards: dict[str, list[ShardInfo]] = {name: [] for name in task.original.splits}
    for chunk, note in zip(task.chunks, notes, strict=True):
        shards[chunk.split].append(note.shard)
    splits = {name: SplitInfo(tuple(its), task.original.classes) for name, its in shards.items()}
    for name, split in splits.items():
        if len(task.original.splits[name]) and not split.samples:
            for chunk in task.chunks:  # nothing is left that could pass for a data set
                (folder / chunk.name).unlink(missing_ok=True)
                index_path(folder / chunk.name).unlink(missing_ok=True)
            shutil.rmtree(folder / PACKING)
            its = [one for one in damaged if one["split"] == name]
            raise DataError(
                f"none of the {len(its):,} images of {name} can be decoded; the first:"
                f" {json.dumps(its[0])}"
            )
    if damaged:
        lines = "".join(json.dumps(one) + "\n" for one in damaged)
        atomic_write_text(folder / DAMAGED, lines)
    counts = {name: sum(one["split"] == name for one in damaged) for name in splits}
    write_manifest(folder, splits, {**description, "damaged": counts})
    # At once, and then at leisure: killed in between, a half of it would mean an unfinished folder.
    shutil.rmtree((folder / PACKING).rename(folder / ".packed"))
    return Packed(splits, len(damaged))


def _difference(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    keys = sorted(key for key in there.keys() | wanted.keys() if there.get(key) != wanted.get(key))
    return f", which differ in {', '.join(keys)}" if there and keys else ""
