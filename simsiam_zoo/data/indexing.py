"""Counting and indexing shards that were not packed here, so that they can be read exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from simsiam_zoo.data.index import UNLABELLED, Findings, ShardIndex, load_index
from simsiam_zoo.data.manifest import (
    MANIFEST,
    TRAIN,
    ShardInfo,
    SplitInfo,
    index_path,
    read_manifest,
    read_packed,
    split_word,
    write_counts,
)
from simsiam_zoo.data.processes import run_tasks
from simsiam_zoo.data.scan import scan
from simsiam_zoo.data.stated import sha256
from simsiam_zoo.errors import DataError, InputError, ZooError
from simsiam_zoo.runtime.folders import atomic_write


@dataclass(frozen=True)
class Scanned:
    """What was found in one shard."""

    info: ShardInfo  # with a checksum if it was read whole
    labelled: int
    names: tuple[str, ...]  # of classes that labels name
    findings: Findings


class Scan:
    """The shards of one folder, to be scanned one by one and their indexes written to `out`.

    One that differs from what is `known` of it by name is refused, its index left alone.
    """

    def __init__(
        self, paths: Sequence[Path], out: Path, checksums: bool, known: dict[str, ShardInfo]
    ) -> None:
        self.paths, self.out, self.checksums = tuple(paths), out, checksums
        self._known = known

    def run(self, number: int) -> Scanned | ZooError:
        """Scan a shard and write its index; an error is given as a value, for the others go on."""
        path = self.paths[number]
        try:
            return self._scan(path, index_path(self.out / path.name))
        except ZooError as error:
            return error

    def _scan(self, path: Path, at: Path) -> Scanned:
        index = scan(path, self.checksums)
        status = path.stat()
        known = self._known.get(path.name)
        anew = self.checksums or not _has_checks(at, index, status.st_size)
        # What is stated with a checksum gets no other index unseen: its labels may be others.
        digest = sha256(path) if self.checksums or (anew and known and known.sha256) else None
        info = ShardInfo(path.name, len(index), status.st_size, digest)
        if digest is None:
            index = replace(index, mtime_ns=status.st_mtime_ns)
        if known is not None and known.sha256 is not None:
            _check_unchanged(path, info, known)
        if anew:
            with atomic_write(at) as file:
                index.save(file)
        labelled = int((index.labels != UNLABELLED).sum())
        return Scanned(info, labelled, index.names, index.findings)


def index_folder(
    paths: Sequence[Path],
    out: Path | None = None,
    checksums: bool = False,
    jobs: int = 1,
    progress: Callable[[int], None] = lambda shards: None,
) -> list[Scanned]:
    """Write the index of each shard, and their counts into the folder's manifest.

    Args:
        paths: shards in one folder.
        out: where to write; None for beside the shards.
        checksums: read the shards whole, and store a checksum of each and of each image.
        jobs, progress: processes; told how many shards were scanned.

    Raises:
        InputError: it cannot be written there.
        DataError: shards are damaged, or not what they were when their checksums were taken; the
            manifest is left as it was.
    """
    folder = paths[0].parent
    out = folder if out is None else out
    try:
        out.mkdir(parents=True, exist_ok=True)
        stated = read_manifest(out)
        if stated is None and (out / MANIFEST).exists():
            raise InputError(f"{out / MANIFEST} is another program's", "Name a folder with --out.")
        known = {shard.name: shard for split in (stated or {}).values() for shard in split.shards}
        scans = Scan(paths, out, checksums, known)
        found: dict[int, Scanned | ZooError] = {}
        for number, result in run_tasks(scans.run, len(paths), jobs):
            found[number] = result
            progress(len(found))
        results = [found[number] for number in range(len(paths))]
        scanned = [one for one in results if isinstance(one, Scanned)]
        if errors := [one for one in results if isinstance(one, ZooError)]:
            raise _refusal(errors, len(paths))
        merged = _merged(stated or {}, scanned, {path.name for path in folder.glob("*.tar")})
        write_counts(out, merged, read_packed(out))
    except OSError as error:
        raise InputError(
            f"indexes cannot be written to {out}: {error.strerror or error}",
            "Name a folder that can be written with --out.",
        ) from None
    return scanned


def _has_checks(path: Path, index: ShardIndex, tar_size: int) -> bool:
    """Whether the index at `path` says all that `index` does, and has checksums of the images."""
    try:
        before = load_index(path, tar_size)
    except DataError:
        return False
    columns = ("keys", "key_ends", "offsets", "sizes", "checks", "labels")
    same = all(np.array_equal(getattr(before, name), getattr(index, name)) for name in columns)
    return same and len(before.image_checks) > 0 and before.names == index.names


def _check_unchanged(path: Path, now: ShardInfo, before: ShardInfo) -> None:
    """Raises DataError where a shard is not what it was when its checksum was taken."""
    if (before.bytes, before.samples) != (now.bytes, now.samples):
        what = "other sizes or counts"
    elif now.sha256 in (None, before.sha256):
        return
    else:
        what = "bytes changed"
    raise DataError(
        f"{path} is not what it was when its checksum was taken: {what}",
        f"Copy it again; or, if it is right, remove {MANIFEST} beside it and index it anew.",
    )


def _refusal(errors: list[ZooError], total: int) -> ZooError:
    if total == 1:
        return errors[0]
    kind = DataError if any(isinstance(e, DataError) for e in errors) else InputError
    what = f"{len(errors):,} of {total:,} shards are refused; the first: {errors[0].what}"
    return kind(what, errors[0].hint)


def _merged(
    stated: dict[str, SplitInfo], scanned: list[Scanned], there: set[str]
) -> dict[str, SplitInfo]:
    """The splits that were stated, less the shards that are gone, with those that were scanned."""
    new = {one.info.name: one.info for one in scanned}
    named = {name for one in scanned for name in one.names}
    numbered = any(one.labelled and not one.names for one in scanned)
    names = None if numbered or not named else tuple(sorted(named))
    splits: dict[str, SplitInfo] = {}
    for split, before in stated.items():
        shards = []
        for old in before.shards:
            now = new.pop(old.name, old)
            if old.name in there:  # a checksum that was taken before stays, if nobody took it now
                shards.append(replace(now, sha256=now.sha256 or old.sha256))
        if shards:
            splits[split] = SplitInfo(tuple(shards), before.classes or names)
    unnamed = "other" if any(split_word(name) in TRAIN for name in there) else TRAIN[0]
    for info in new.values():
        split = split_word(info.name) or unnamed
        before = splits.get(split, SplitInfo((), names))
        found = tuple(sorted((*before.shards, info), key=lambda shard: shard.name))
        splits[split] = SplitInfo(found, before.classes)
    return splits
