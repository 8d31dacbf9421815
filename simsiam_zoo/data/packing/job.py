"""Packing a whole data set: in parallel, to the same bytes each time, and on from where it stopped.

While it is being packed, a folder holds `.packing/`: a lock, what is being packed, and a record of
each finished shard. A shard is a function of (data set, options, its number), so it does not matter
which process makes it, nor when. The manifest comes last; then `.packing/` goes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from simsiam_zoo.data.manifest import (
    MANIFEST,
    PACKING,
    SplitInfo,
    read_manifest,
    read_packed,
    write_manifest,
)
from simsiam_zoo.data.packing.assignment import Job, PackOptions, Record
from simsiam_zoo.data.packing.originals import Original
from simsiam_zoo.data.tasks import run_tasks
from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.runtime.folders import atomic_write_text

__all__ = ["DAMAGED", "PackOptions", "Packed", "pack_original"]

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
    job = Job(original, folder, options)
    description = job.description()
    try:
        done = _open_folder(folder, description)
        if done is not None:
            return done
        with FileLock(folder / PACKING / "lock", timeout=0):
            _begin(job, description)
            return _run(job, description, jobs, progress)
    except Timeout:
        raise InputError(f"{folder} is being packed into by another process") from None
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from None


def _open_folder(folder: Path, description: Mapping[str, Any]) -> Packed | None:
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
        return Packed(splits, sum(damaged.values()), already=True)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is no empty folder", "Name a new one.")
    (folder / PACKING).mkdir(parents=True, exist_ok=True)
    return None


def _begin(job: Job, description: Mapping[str, Any]) -> None:
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
    job: Job,
    description: Mapping[str, Any],
    jobs: int,
    progress: Callable[[int], bool],
) -> Packed | None:
    records: dict[int, Record] = {}
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


def _finish(job: Job, description: Mapping[str, Any], records: list[Record]) -> Packed:
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
    splits = {
        name: SplitInfo(
            tuple(record.shard for chunk, record in pairs if chunk.split == name),
            job.original.classes,
        )
        for name in job.original.splits
    }
    if not any(split.samples for split in splits.values()):
        shutil.rmtree(job.folder / PACKING)
        raise DataError(f"none of the {job.samples:,} images can be decoded; the first: {lines[0]}")
    if lines:
        atomic_write_text(job.folder / DAMAGED, "".join(lines))
    write_manifest(job.folder, splits, {**description, "damaged": damaged})
    # At once, and then at leisure: killed in between, a half of it would mean an unfinished folder.
    shutil.rmtree((job.folder / PACKING).rename(job.folder / ".packed"))
    return Packed(splits, len(lines))


def _difference(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    keys = sorted(key for key in there.keys() | wanted.keys() if there.get(key) != wanted.get(key))
    return f", which differ in {', '.join(keys)}" if there and keys else ""
