"""What a user names (a folder, a tar, a glob, a brace pattern, a URL) → sets of shards."""

from __future__ import annotations

import glob
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from simsiam_zoo.data.index import load_index, scan
from simsiam_zoo.data.manifest import (
    PACKING,
    TIMM_INFO,
    by_purpose,
    index_path,
    read_info,
    read_manifest,
)
from simsiam_zoo.data.remote.cache import ShardCache
from simsiam_zoo.data.remote.listing import RemoteSplit, find_remote
from simsiam_zoo.data.remote.urls import expand, is_remote, redacted
from simsiam_zoo.data.shards import Dataset, ShardRow, ShardSet, ShardTable
from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.runtime.folders import atomic_write, cache_dir, expand_user


def find_shards(source: str) -> tuple[list[Path], list[Path]]:
    """The shards for training and for testing that `source` names, each sorted by name.

    A folder: its `train-*.tar`, and its `val-*.tar`, else `validation-*` or `test-*.tar`; a folder
    without such names: all of its tars, for training. One tar, a glob or a brace pattern
    (`train-{000000..000146}.tar`): those shards, for training.

    Raises:
        InputError: nothing is there, or the source is remote or a command.
    """
    train, test = locate_shards(source)
    return [Path(one) for one in train], [Path(one) for one in test]


def locate_shards(source: str) -> tuple[list[str], list[str]]:
    """`find_shards`, as strings: of a hundred thousand paths the objects take much memory."""
    path = _local(source)
    test: list[str] = []
    if path.is_dir():
        train, test = _in_folder(path)
    elif path.is_file():
        train = [str(path)]
    else:
        train = _matching(source, path)
    for folder in {os.path.dirname(shard) for shard in train + test}:
        _refuse_unfinished(Path(folder))
    return train, test


def _local(source: str) -> Path:
    if is_remote(source):
        raise InputError(
            f"{redacted(source)} is remote, and this needs shards on disk",
            "Download the shards and name their folder.",
        )
    return expand_user(source)


def _refuse_unfinished(folder: Path) -> None:
    if (folder / PACKING).is_dir():
        raise InputError(
            f"{folder} is still being packed, or its packing was interrupted: shards are missing",
            "Say the same `simsiam-zoo pack` again: it goes on where it stopped.",
        )


def _in_folder(folder: Path) -> tuple[list[str], list[str]]:
    with os.scandir(folder) as entries:
        tars = sorted(e.name for e in entries if e.name.endswith(".tar") and e.is_file())
    if not tars:
        raise InputError(
            f"{folder} holds no shards: looked for train-*.tar and val-*.tar, then for *.tar"
        )
    train, test = by_purpose(tars, str)
    return [os.path.join(folder, one) for one in train], [os.path.join(folder, one) for one in test]


def _matching(source: str, path: Path) -> list[str]:
    if "{" in source:
        names = expand(str(path))
        missing = [name for name in names if not os.path.isfile(name)]
        if missing:
            raise InputError(
                f"{len(missing)} of the {len(names)} shards that {source} names are missing,"
                f" the first is {missing[0]}"
            )
        return names
    found = [match for match in sorted(glob.glob(str(path))) if os.path.isfile(match)]
    if not found:
        raise InputError(
            f"no data at {source}: no such folder, tar or match of the pattern",
            "Name a folder of shards, a tar, or a pattern such as train-{000000..000009}.tar.",
        )
    return found


_AT_ONCE = 256  # shards that are looked at together


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
    train_paths, test_paths = locate_shards(source)
    if os.path.isdir(folder := os.path.expanduser(source)):
        _refuse_missing(Path(folder))
    return _shard_set(train_paths, source), _shard_set(test_paths, source) if test_paths else None


def _refuse_missing(folder: Path) -> None:
    """A folder has all the shards that its manifest states, or it was not copied to the end.

    Raises:
        DataError: shards are missing.
    """
    there = set(os.listdir(folder))
    splits = (read_manifest(folder) or {}).values()
    stated = [shard.name for split in splits for shard in split.shards]
    if missing := [name for name in stated if name not in there]:
        raise DataError(
            f"{folder} lacks {len(missing):,} of the {len(stated):,} shards that its manifest"
            f" states; the first is {missing[0]}",
            "Copy them again; or, to do without them, name those that are there by a pattern.",
        )


def _remote_set(split: RemoteSplit, source: str) -> ShardSet:
    if not sum(shard.samples for shard in split.shards):
        raise InputError(f"{redacted(source)} holds no images, as is stated there")
    cache = ShardCache()
    rows = (ShardRow(s.url, s.samples, s.bytes, s.sha256) for s in split.shards)
    return ShardSet(ShardTable(rows, cache), split.classes, cache)


def _shard_set(paths: list[str], source: str) -> ShardSet:
    folders = {folder: _Stated(Path(folder)) for folder in {os.path.dirname(p) for p in paths}}
    with ThreadPoolExecutor(max_workers=8) as pool:  # a scan waits for the disk
        parts = (paths[at : at + _AT_ONCE] for at in range(0, len(paths), _AT_ONCE))
        table = ShardTable(
            row
            for part in parts
            for row in pool.map(lambda p: folders[os.path.dirname(p)].row(p), part)
        )
    if not table.samples.any():
        raise InputError(f"{source} holds no images: looked for members .jpg, .jpeg, .png, .webp")
    classes = {folders[os.path.dirname(path)].classes(path) for path in paths}
    return ShardSet(table, classes.pop() if len(classes) == 1 else None)


class _Stated:
    """What a folder's files state of its shards."""

    def __init__(self, folder: Path) -> None:
        self._splits = tuple((read_manifest(folder) or {}).values())
        self._split_of = {
            shard.name: (split, place)
            for split, of in enumerate(self._splits)
            for place, shard in enumerate(of.shards)
        }
        self._info = folder / TIMM_INFO
        self._counts = {} if self._splits else read_info(folder) or {}

    def classes(self, path: str) -> tuple[str, ...] | None:
        """Of the split that the shard is in, where they are named."""
        split, _ = self._split_of.get(os.path.basename(path), (None, 0))
        return None if split is None else self._splits[split].classes

    def row(self, path: str) -> ShardRow:
        """What is known of the shard: from the manifest, or by scanning it once."""
        try:
            status = os.stat(path)
        except OSError as error:
            raise InputError(f"the shard {path} cannot be read: {error.strerror}") from None
        name = os.path.basename(path)
        if name not in self._split_of:
            index, samples = _cached_index(Path(path), status)
            if self._counts.get(name, samples) != samples:
                raise DataError(
                    f"{path} holds {samples} samples, and {self._info} states {self._counts[name]}",
                    "Copy the shard again; or, if it is right, count anew: `simsiam-zoo index`.",
                )
            return ShardRow(path, samples, status.st_size, None, index)
        split, place = self._split_of[name]
        stated = self._splits[split].shards[place]
        if status.st_size != stated.bytes:
            raise DataError(
                f"{path} has {status.st_size} bytes, its manifest states {stated.bytes}",
                "Copy or pack the shard again.",
            )
        beside = index_path(Path(path)).is_file()  # it may have been copied without it
        index = "" if beside else _cached_index(Path(path), status)[0]
        return ShardRow(path, stated.samples, stated.bytes, stated.sha256, index)


def _cached_index(path: Path, status: os.stat_result) -> tuple[str, int]:
    """The index of a shard in the user's cache (the shard's folder may be read-only), its length.

    It is found by the shard's path, size and time: a shard that changed is indexed anew.
    """
    identity = f"{path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}"
    name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32] + ".npz"
    cached = cache_dir() / "indexes" / name
    try:
        return name, len(load_index(cached, status.st_size))
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
    return name, len(index)
