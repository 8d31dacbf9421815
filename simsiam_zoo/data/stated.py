"""What is known of shards: by files beside them, or by a scan, whose findings are written there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from simsiam_zoo.data.index import UNLABELLED, Findings, ShardIndex, load_index
from simsiam_zoo.data.manifest import (
    MANIFEST,
    TIMM_INFO,
    TRAIN,
    ShardInfo,
    SplitInfo,
    StatedShard,
    index_path,
    plain_name,
    read_manifest,
    read_packed,
    split_word,
    write_counts,
)
from simsiam_zoo.data.processes import run_tasks
from simsiam_zoo.data.remote.urls import file_name, redacted
from simsiam_zoo.data.scan import scan
from simsiam_zoo.errors import DataError, InputError, ZooError
from simsiam_zoo.runtime.folders import cache_dir, file_sha256, unwritable_cache

_SCAN_VERSION = 4  # of what a scan finds: another one scans again


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard, with what is known of it before it is opened."""

    location: str  # its path or URL, a string: 100,000 paths would take much memory
    samples: int
    bytes: int
    sha256: str | None  # as its manifest states it
    version: str = ""
    """What tells it from another of its size where there is no checksum: the time of its last
    change in ns, or what its server calls the version; "" where nothing does."""
    cached: str = ""  # the name of its index in the user's cache, "" where it lies beside the shard

    @property
    def name(self) -> str:
        """Its file's name, without where it lies."""
        return file_name(self.location)

    @property
    def where(self) -> str:
        """What errors call it."""
        return redacted(self.location) if "://" in self.location else self.location

    @property
    def index(self) -> Path:
        """Where the index of one on disk lies."""
        beside = index_path(Path(self.location))
        return cache_dir() / "indexes" / self.cached if self.cached else beside


def digest_of(shards: Iterable[Shard], remote: bool) -> str:
    """SHA-256 (hex) of what tells shards from others: it changes when bytes may have.

    It is over names, sizes, counts and checksums, never over locations. A shard without a checksum
    counts with its path and the time of its last change, or with what its server calls its version
    (its URL, where the server tells none).
    """
    digest = hashlib.sha256()
    for shard in shards:
        mark = shard.sha256 or shard.version
        if not shard.sha256 and not (remote and shard.version):
            mark += "\0" + (shard.location if remote else os.path.abspath(shard.location))
        line = f"{shard.name}\0{shard.bytes}\0{shard.samples}\0{mark}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def known_shard(path: str, stated: StatedShard | None) -> tuple[Shard, ShardIndex | None]:
    """What is known of a shard on disk, by what is stated or by scanning it; its index if it was.

    Raises:
        InputError: there is no such file, or its index cannot be written.
        DataError: it is damaged, or not what is stated.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(f"the shard {path} cannot be read: {error.strerror}") from None
    known = stated if stated and stated.bytes is not None else None
    if known and status.st_size != known.bytes:
        raise DataError(
            f"{path} has {status.st_size} bytes, its manifest states {known.bytes}",
            "Copy or pack the shard again.",
        )
    sha256 = known.sha256 if known else None
    version = "" if sha256 else str(status.st_mtime_ns)
    if known and _index_holds(Path(path), status, sha256):
        return Shard(path, known.samples, status.st_size, sha256, version), None
    cached, index = _cached_index(Path(path), status, sha256)
    if stated and stated.samples != len(index):
        by = "its manifest" if known else Path(path).with_name(TIMM_INFO)
        raise DataError(
            f"{path} holds {len(index)} samples, and {by} states {stated.samples}",
            "Copy the shard again; or, if it is right, count anew: `simsiam-zoo index`.",
        )
    return Shard(path, len(index), status.st_size, sha256, version, cached), index


def _index_holds(path: Path, status: os.stat_result, sha256: str | None) -> bool:
    """Whether the index beside a shard is there, and is not older than the shard.

    Images are compared with it where they are read, but labels are not.
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


def _cached_index(
    path: Path, status: os.stat_result, sha256: str | None = None
) -> tuple[str, ShardIndex]:
    """The index of a shard in the user's cache (the shard's folder may be read-only), its name.

    It is found by the shard's path, size and time: a shard that changed is indexed anew.
    """
    identity = [path.absolute(), status.st_size, status.st_mtime_ns, _SCAN_VERSION, sha256 or ""]
    text = "\0".join(map(str, identity)).encode("utf-8", "surrogateescape")
    name = hashlib.sha256(text).hexdigest()[:32] + ".safetensors"
    cached = cache_dir() / "indexes" / name
    try:
        return name, load_index(cached, status.st_size)
    except DataError:  # missing, damaged or of another version
        if sha256 is not None:
            check_sha256(path, sha256)
        index = scan(path)
    try:
        cached.parent.mkdir(exist_ok=True)
        index.save(cached)
    except OSError as error:
        what = f"the index of {path} cannot be written to {cached.parent}"
        raise unwritable_cache(what, error) from None
    return name, index


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises DataError where it cannot be read."""
    try:
        return file_sha256(path)
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


@dataclass(frozen=True)
class Scanned:
    """What was found in one shard."""

    info: ShardInfo  # with a checksum if it was read whole
    labelled: int
    names: tuple[str, ...]  # of classes that labels name
    findings: Findings


def index_folder(
    paths: Sequence[Path],
    out: Path | None = None,
    checksums: bool = False,
    jobs: int = 1,
    progress: Callable[[int], None] = lambda shards: None,
) -> list[Scanned]:
    """Write the index of each shard of a folder, and their counts into the folder's manifest.

    They are written to `out`, or beside the shards. With `checksums` the shards are read whole, and
    a checksum of each and of each image is stored. `progress` is told how many were scanned.

    Raises:
        InputError: it cannot be written there, or a shard's name cannot be in a manifest.
        DataError: shards are damaged, or not what they were when their checksums were taken; the
            manifest is left as it was.
    """
    folder = paths[0].parent
    out = folder if out is None else out
    try:
        for path in paths:
            plain_name(path.name)
    except ValueError as error:
        raise InputError(f"{folder}: {error}", "Rename it: plain text that ends in .tar.") from None
    try:
        out.mkdir(parents=True, exist_ok=True)
        stated = read_manifest(out)
        if stated is None and (out / MANIFEST).exists():
            raise InputError(f"{out / MANIFEST} is another program's", "Name a folder with --out.")
        known = {shard.name: shard for split in (stated or {}).values() for shard in split.shards}
        found: dict[int, Scanned | ZooError] = {}
        scan_one = partial(_scan_one, paths, out, checksums, known)
        for number, result in run_tasks(scan_one, len(paths), jobs):
            found[number] = result
            progress(len(found))
        results = [found[number] for number in range(len(paths))]
        scanned = [one for one in results if isinstance(one, Scanned)]
        if errors := [one for one in results if isinstance(one, ZooError)]:
            raise _refusal(errors, len(paths))
        merged = _merged(stated or {}, scanned, {path.name for path in folder.glob("*.tar")})
        write_counts(out, merged, read_packed(out))
        noted = {shard.name: shard for split in merged.values() for shard in split.shards}
        scanned = [replace(one, info=noted[one.info.name]) for one in scanned]
    except OSError as error:
        raise InputError(
            f"indexes cannot be written to {out}: {error.strerror or error}",
            "Name a folder that can be written with --out.",
        ) from None
    return scanned


def _scan_one(
    paths: Sequence[Path], out: Path, checksums: bool, known: dict[str, ShardInfo], number: int
) -> Scanned | ZooError:
    """Scan a shard and write its index to `out`, unless it differs from what is known by its name.

    An error is given as a value, for the others go on.
    """
    path = paths[number]
    try:
        return _scan(path, index_path(out / path.name), checksums, known.get(path.name))
    except ZooError as error:
        return error


def _scan(path: Path, at: Path, checksums: bool, known: ShardInfo | None) -> Scanned:
    index = scan(path, checksums)
    status = path.stat()
    anew = checksums or not _has_checks(at, index, status.st_size)
    # What is stated with a checksum gets no other index unseen: its labels may be others.
    digest = sha256(path) if checksums or (anew and known and known.sha256) else None
    info = ShardInfo(path.name, len(index), status.st_size, digest)
    if digest is None:
        index = replace(index, mtime_ns=status.st_mtime_ns)
    if known is not None and known.sha256 is not None:
        _check_unchanged(path, info, known)
    if anew:
        index.save(at)
    labelled = int((index.labels != UNLABELLED).sum())
    return Scanned(info, labelled, index.names, index.findings)


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
