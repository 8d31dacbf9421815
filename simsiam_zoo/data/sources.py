"""What a user names (a folder, a tar, a glob, a brace pattern, a URL) → sets of shards.

Reading exactly needs every shard's count before the first step. Of remote shards it is taken from
the `manifest.json` of their folder, or from its `_info.json` with the sizes that the server tells.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from simsiam_zoo.data.index import UNLABELLED, Findings, ShardIndex
from simsiam_zoo.data.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    PACKING,
    TIMM_INFO,
    StatedShard,
    by_purpose,
    read_manifest,
    stated_by,
    stated_shards,
)
from simsiam_zoo.data.packing.cached import is_unpacked, note_images_beside, pack_once
from simsiam_zoo.data.remote.cache import ShardCache
from simsiam_zoo.data.remote.stores import Denied
from simsiam_zoo.data.remote.transfer import ask_for, read_small
from simsiam_zoo.data.remote.urls import check_url, expand, file_name, is_remote, redacted
from simsiam_zoo.data.scan import describe_findings
from simsiam_zoo.data.shards import Dataset, ShardSet
from simsiam_zoo.data.stated import Shard, known_shard
from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.runtime.folders import expand_user

_AT_ONCE = 256  # shards that are looked at together


def locate_shards(source: str) -> tuple[list[str], list[str], list[str]]:
    """Paths of shards for training and for testing, sorted; and a note of those for neither.

    A folder: its shards by their split, as its manifest or `_info.json` states it, or else by a
    word in their names (`train-*.tar`, `set-validation-*.tar`); val is taken before validation and
    test. Shards without such names are for training where no others are. One tar, a glob or a brace
    pattern (`train-{000000..000146}.tar`): those shards, for training. Raises InputError where
    nothing is there, it is not clear what a shard is for, or the source is remote or a command.
    """
    path = _local(source)
    notes: list[str] = []
    train, test = [str(path)], list[str]()
    if os.path.isdir(path):
        tars = _tars(path)
        stated = {one.name: one.split for one in stated_shards(path).values() if one.split}
        *purposes, left = by_purpose(tars, stated)
        train, test = ([os.path.join(path, name) for name in names] for names in purposes)
        notes = _note_unread(left, str(path))
        if not train:
            raise InputError(f"{path} holds no shards to train on, only {tars[0]} and its like")
    elif not os.path.isfile(path):
        train = _matching(source, path)
    for folder in {os.path.dirname(shard) for shard in train + test}:
        _refuse_unfinished(Path(folder))
    return train, test, notes


def all_shards(source: str) -> list[Path]:
    """Every shard that `source` names, whatever it is for. Raises as `locate_shards` does."""
    path = _local(source)
    if not os.path.isdir(path):
        return [Path(shard) for shard in locate_shards(source)[0]]
    _refuse_unfinished(path)
    return [path / name for name in _tars(path)]


def _note_unread(names: list[str], folder: str) -> list[str]:
    """What a person should know of the shards of a folder that are not read."""
    if not names:
        return []
    what = f"{len(names):,} shards of {folder} are for neither training nor testing"
    return [f"{what} and are not read; the first is {names[0]}. To read them, name a pattern"]


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


def _tars(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            named = [e for e in entries if e.name.endswith(".tar") and not e.name.startswith(".")]
            tars = sorted(e.name for e in named if e.is_file())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from None
    if not tars:
        raise InputError(
            f"{folder} holds no shards: looked for train-*.tar and val-*.tar, then for *.tar",
            "`simsiam-zoo pack` makes shards of pictures.",
        )
    return tars


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
        place = "" if path.is_absolute() else f"It was looked for in {os.getcwd()}. "
        raise InputError(
            f"no data at {source}: no such folder, tar or match of the pattern",
            place + "Name a folder of images or shards, a tar, or a pattern:"
            " train-{000000..000009}.tar.",
        )
    return found


def open_shards(source: str, test: str = "") -> Dataset:
    """The data that a folder, a tar, a glob, a brace pattern or a URL names.

    Images that are no shards yet are packed into the user's cache first. Of remote shards nothing
    is read yet but what is stated beside them. `test` is another source of test shards: those in it
    that are named so, else all.

    Raises:
        InputError: there is nothing to read, or its counts are not known.
        DataError: a shard is damaged, or what is remote cannot be had.
    """
    met = _Met()
    for_training, for_test = _open(source, met)
    if test:
        train_of_test, test_of_test = _open(test, met)
        for_test = test_of_test or train_of_test
    met.name_classes([for_training, *([for_test] if for_test else [])])
    notes = describe_findings(met.findings) + met.said
    return Dataset(for_training, for_test, for_training.classes, tuple(notes))


class _Met:
    """What was met in shards that were opened: class names, what is passed over or not read."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.findings: list[Findings] = []
        self.said: list[str] = []
        self.numbered = self.named = 0

    def add(self, index: ShardIndex) -> None:
        """Take note of a shard's index."""
        self.names.update(index.names)
        self.numbered += int((index.labels >= 0).sum())
        self.named += int((index.labels < UNLABELLED).sum())
        if index.findings != Findings():
            self.findings.append(index.findings)

    def name_classes(self, sets: list[ShardSet]) -> None:
        """Number the classes that labels name, in their names' order, the same in all sets."""
        if not self.names or all(one.classes for one in sets):
            return
        first = min(self.names)
        if self.numbered:
            self.said.append(
                f"{self.named:,} labels are names (one is {first!r}) and {self.numbered:,} numbers:"
                " images whose label is a name count as unlabelled"
            )
        elif len(self.names) > max(100, self.named // 2):
            self.said.append(
                f"the {self.named:,} labels are {len(self.names):,} different texts (one is"
                f" {first!r}): they are not taken as classes, and the images count as unlabelled"
            )
        else:
            for one in sets:
                one.classes = one.classes or tuple(sorted(self.names))


def _open(source: str, met: _Met) -> tuple[ShardSet, ShardSet | None]:
    if is_remote(source):
        train, test, notes = _open_remote(source)
        met.said += notes
        return train, test
    if is_unpacked(folder := expand_user(source)):
        folder, notes = pack_once(folder)
        source, met.said = str(folder), met.said + notes
    elif folder.is_dir():
        met.said += note_images_beside(folder)
    for_training, for_test, notes = locate_shards(source)
    met.said += notes
    if folder.is_dir():
        _refuse_missing(folder)
    train = _shard_set(for_training, source, met)
    return train, _shard_set(for_test, source, met) if for_test else None


def _refuse_missing(folder: Path) -> None:
    """Raise DataError where shards that the manifest states are missing."""
    there = set(os.listdir(folder))
    splits = (read_manifest(folder) or {}).values()
    stated = [shard.name for split in splits for shard in split.shards]
    if missing := [name for name in stated if name not in there]:
        raise DataError(
            f"{folder} lacks {len(missing):,} of the {len(stated):,} shards that its manifest"
            f" states; the first is {missing[0]}",
            "Copy them again; or, to do without them, name those that are there by a pattern, or"
            " count anew: `simsiam-zoo index`.",
        )


def _shard_set(paths: list[str], source: str, met: _Met) -> ShardSet:
    folders = {os.path.dirname(path) for path in paths}
    stated = {folder: stated_shards(Path(folder)) for folder in folders}

    def known(path: str) -> tuple[Shard, ShardIndex | None]:
        folder, name = os.path.split(path)
        return known_shard(path, stated[folder].get(name))

    shards: list[Shard] = []
    with ThreadPoolExecutor(max_workers=8) as pool:  # a scan waits for the disk
        for at in range(0, len(paths), _AT_ONCE):
            for shard, index in pool.map(known, paths[at : at + _AT_ONCE]):
                shards.append(shard)
                if index is not None:
                    met.add(index)
    if not any(shard.samples for shard in shards):
        noted = "".join(f"; {line}" for line in describe_findings(met.findings))
        raise InputError(
            f"{source} holds no images: looked for JPEG, PNG and WebP{noted}",
            "A shard holds images themselves: unpack archives that are in it.",
        )
    told = (stated[os.path.dirname(path)].get(os.path.basename(path)) for path in paths)
    classes = {one and one.classes for one in told}
    return ShardSet(shards, classes.pop() if len(classes) == 1 else None)


def _open_remote(source: str) -> tuple[ShardSet, ShardSet | None, list[str]]:
    """The shards for training and for testing that a URL names, and notes of those left out.

    A folder's URL: those that its manifest names, as `locate_shards` tells them apart. One
    tar or a brace pattern: those, for training.
    """
    url = check_url(source.strip())
    if url.endswith(".tar"):
        urls = expand(url)
        known = {f: _read_folder(f) for f in sorted({one.rpartition("/")[0] for one in urls})}
        return _remote_set(urls, known, url), None, []
    if "{" in url.rpartition("/")[2]:
        raise InputError(f"{redacted(url)}: braces spell shards, so the name ends in .tar")
    folder = url.rstrip("/")
    stated = _read_folder(folder)
    if not stated:
        raise _uncounted(f"{redacted(folder)}/")
    splits = {one.name: one.split for one in stated.values() if one.split}
    train, test, left = by_purpose(sorted(stated), splits)
    escape = quote if url.startswith("http") else str  # object stores take names as they are
    for_training, for_test = (
        [f"{folder}/{escape(name)}" for name in names] for names in (train, test)
    )
    known, notes = {folder: stated}, _note_unread(left, redacted(folder))
    tests = _remote_set(for_test, known, url) if test else None
    return _remote_set(for_training, known, url), tests, notes


def _uncounted(shown: str, names: Sequence[str] = ()) -> InputError:
    what = f"no {MANIFEST} or {TIMM_INFO} beside it states how many samples there are"
    if names:
        what = f"it is none of the {len(names):,} shards that {MANIFEST} or {TIMM_INFO} beside it"
        what += f" states, {names[0]} to {names[-1]}: its count is not known"
    return InputError(
        f"{shown}: {what}, and exact reading must know",
        "Run `simsiam-zoo index` where the shards are and publish what it writes beside them; or"
        " read them with --stream, with weaker guarantees.",
    )


def _remote_set(urls: list[str], known: dict[str, dict[str, StatedShard]], source: str) -> ShardSet:
    """The shards behind `urls`, `known` by folder and name.

    Where no checksum is stated, the server is asked for size and version.
    """
    pairs = []
    for url in urls:
        stated_there = known[url.rpartition("/")[0]]
        if (one := stated_there.get(file_name(url))) is None:
            raise _uncounted(redacted(url), sorted(stated_there))
        pairs.append((url, one))

    def sized(pair: tuple[str, StatedShard]) -> Shard:
        url, stated = pair
        size, version = stated.bytes, ""
        if size is None or stated.sha256 is None:
            found, version = ask_for(url)
            if size not in (None, found):
                raise DataError(
                    f"{redacted(url)} has {found} bytes, its manifest states {size}",
                    "Copy or pack the shard again.",
                )
            size = found
        return Shard(url, stated.samples, size, stated.sha256, version)

    if not sum(stated.samples for _, stated in pairs):
        raise InputError(f"{redacted(source)} holds no images, as is stated there")
    with ThreadPoolExecutor(max_workers=16) as pool:
        shards = list(pool.map(sized, pairs))
    classes = {stated.classes for _, stated in pairs}
    return ShardSet(shards, classes.pop() if len(classes) == 1 else None, ShardCache())


def _read_folder(folder: str) -> dict[str, StatedShard]:
    """What the folder's files state of its shards, by name; empty where there are none."""
    denied: list[Denied] = []

    def read(name: str) -> bytes | None:
        try:
            return read_small(f"{folder}/{name}", MAX_MANIFEST_BYTES)
        except Denied as error:
            denied.append(error)
            return None

    stated = stated_by(read, redacted(folder))
    if denied and not stated:
        raise denied[0]
    return stated
