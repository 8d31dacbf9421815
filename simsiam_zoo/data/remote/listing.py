"""Which remote shards a URL names, and what is stated of them beside them.

Reading exactly needs every shard's count before the first step, so it is taken from the
`manifest.json` of their folder, or from its `_info.json` with the sizes that the server tells.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simsiam_zoo.data.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    TIMM_INFO,
    by_purpose,
    read_manifest,
)
from simsiam_zoo.data.remote.cache import RemoteShard
from simsiam_zoo.data.remote.transfer import read_small, size_of
from simsiam_zoo.data.remote.urls import check_url, expand, redacted
from simsiam_zoo.errors import DataError, InputError

_TAR = re.compile(r"[\w][\w.+-]*\.tar\Z")
_MOST_SAMPLES = 1 << 40

Classes = tuple[str, ...] | None


@dataclass(frozen=True)
class RemoteSplit:
    """Some remote shards, in order, and the names of their classes."""

    shards: tuple[RemoteShard, ...]
    classes: Classes = None


@dataclass(frozen=True, slots=True)
class _Stated:
    """What is stated of one shard; `bytes` is None where nothing but its count is."""

    name: str
    samples: int
    bytes: int | None
    sha256: str | None
    classes: Classes


def find_remote(source: str) -> tuple[RemoteSplit, RemoteSplit | None]:
    """The shards for training and for testing that a URL names, as `sources.find_shards` does.

    A folder's URL: those that its manifest names. One tar or a brace pattern: those, for training.

    Raises:
        InputError: the URL is refused, or no count is stated of a shard.
        DataError: what is stated cannot be had or is damaged.
    """
    url = check_url(source.strip())
    if not url.rpartition("/")[2].endswith(".tar"):
        if "{" in url:
            raise InputError(f"{redacted(url)}: braces spell shards, so the name ends in .tar")
        folder = url.rstrip("/")
        stated = _read_folder(folder)
        if not stated:
            raise _uncounted(f"{redacted(folder)}/")
        train, test = by_purpose([stated[name] for name in sorted(stated)], lambda one: one.name)
        return _split(train, folder), (_split(test, folder) if test else None)
    urls = expand(url)
    folders = {one.rpartition("/")[0] for one in urls}
    known = {folder: _read_folder(folder) for folder in sorted(folders)}
    pairs = []
    for one in urls:
        folder, _, name = one.rpartition("/")
        if name not in known[folder]:
            raise _uncounted(redacted(one))
        pairs.append((one, known[folder][name]))
    return _sized(pairs), None


def _uncounted(shown: str) -> InputError:
    return InputError(
        f"{shown}: no {MANIFEST} or {TIMM_INFO} beside it states how many samples there are, and"
        " exact reading must know",
        "Run `simsiam-zoo index` where the shards are and publish what it writes beside them; or"
        " read them with --stream, with weaker guarantees.",
    )


def _split(stated: Sequence[_Stated], folder: str) -> RemoteSplit:
    return _sized([(f"{folder}/{one.name}", one) for one in stated])


def _sized(pairs: Sequence[tuple[str, _Stated]]) -> RemoteSplit:
    """The shards; the sizes that nothing states are asked for."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        sizes = pool.map(lambda p: size_of(p[0]) if p[1].bytes is None else p[1].bytes, pairs)
        shards = tuple(
            RemoteShard(url, size, stated.samples, stated.sha256)
            for (url, stated), size in zip(pairs, sizes, strict=True)
        )
    classes = {stated.classes for _, stated in pairs}
    return RemoteSplit(shards, classes.pop() if len(classes) == 1 else None)


def _read_folder(folder: str) -> dict[str, _Stated]:
    """What the folder's files state of its shards, by name; empty where there are none."""
    ours = read_small(f"{folder}/{MANIFEST}", MAX_MANIFEST_BYTES)
    if ours is not None and (stated := _ours(ours, f"{folder}/{MANIFEST}")) is not None:
        return stated
    timms = read_small(f"{folder}/{TIMM_INFO}", MAX_MANIFEST_BYTES)
    return {} if timms is None else _timms(timms, f"{redacted(folder)}/{TIMM_INFO}")


def _ours(content: bytes, url: str) -> dict[str, _Stated] | None:
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        (copy / MANIFEST).write_bytes(content)
        try:
            splits = read_manifest(copy)
        except DataError as error:
            what = error.what.replace(str(copy / MANIFEST), redacted(url))
            raise DataError(what, error.hint) from None
    if splits is None:
        return None
    return {
        shard.name: _Stated(shard.name, shard.samples, shard.bytes, shard.sha256, split.classes)
        for split in splits.values()
        for shard in split.shards
    }


def _timms(content: bytes, shown: str) -> dict[str, _Stated]:
    try:
        splits = json.loads(content)["splits"].values()
        return {one.name: one for split in splits for one in _timm_split(split)}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, InputError) as error:
        kind = error if isinstance(error, ValueError) else type(error).__name__
        raise DataError(f"{shown} is damaged: {kind}") from None


def _timm_split(split: Any) -> Iterable[_Stated]:
    names, counts = split["filenames"], split["shard_lengths"]
    if isinstance(names, str):
        names = expand(names)
    if len(names) != len(counts):
        raise ValueError("it names more shards than counts, or fewer")
    for name, count in zip(names, counts, strict=True):
        if not isinstance(name, str) or not _TAR.match(name):
            raise ValueError(f"{name!a} is no shard's name")
        if type(count) is not int or not 0 <= count < _MOST_SAMPLES:
            raise ValueError(f"{name}: {count!a} is no count")
        yield _Stated(name, count, None, None, None)
