"""Which remote shards a URL names, and what is stated of them beside them.

Reading exactly needs every shard's count before the first step, so it is taken from the
`manifest.json` of their folder, or from its `_info.json` with the sizes that the server tells.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, unquote

from simsiam_zoo.data.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    TIMM_INFO,
    StatedShard,
    by_purpose,
    stated_by,
)
from simsiam_zoo.data.remote.cache import ShardCache
from simsiam_zoo.data.remote.transfer import ask_for, read_small
from simsiam_zoo.data.remote.urls import check_url, expand, redacted
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.data.stated import Shard
from simsiam_zoo.errors import DataError, InputError


def open_remote(source: str) -> tuple[ShardSet, ShardSet | None, list[str]]:
    """The shards for training and for testing that a URL names, and notes of those left out.

    A folder's URL: those that its manifest names, as `sources.locate_shards` tells them apart. One
    tar or a brace pattern: those, for training.

    Raises:
        InputError: the URL is refused, no count is stated of a shard, it is not clear what one is
            for, or there are no images to train on.
        DataError: what is stated cannot be had or is damaged.
    """
    url = check_url(source.strip())
    if url.endswith(".tar"):
        urls = expand(url)
        known = {
            folder: _read_folder(folder) for folder in sorted({u.rpartition("/")[0] for u in urls})
        }
        pairs = []
        for one in urls:
            folder, _, name = one.rpartition("/")
            if unquote(name) not in known[folder]:
                raise _uncounted(redacted(one))
            pairs.append((one, known[folder][unquote(name)]))
        return _shard_set(pairs, url), None, []
    if "{" in url.rpartition("/")[2]:
        raise InputError(f"{redacted(url)}: braces spell shards, so the name ends in .tar")
    folder = url.rstrip("/")
    stated = _read_folder(folder)
    if not stated:
        raise _uncounted(f"{redacted(folder)}/")
    escape = quote if folder.startswith("http") else str  # object stores take names as they are
    named = [(f"{folder}/{escape(name)}", stated[name]) for name in sorted(stated)]
    splits = {one.name: one.split for one in stated.values() if one.split}
    train, test, left = by_purpose(named, lambda pair: pair[1].name, splits)
    notes = note_unread([one.name for _, one in left], redacted(folder))
    return _shard_set(train, url), _shard_set(test, url) if test else None, notes


def note_unread(names: list[str], folder: str) -> list[str]:
    """What a person should know of the shards of a folder that are not read."""
    if not names:
        return []
    return [
        f"{len(names):,} shards of {folder} are for neither training nor testing and are not read;"
        f" the first is {names[0]}. To read them, name them by a pattern"
    ]


def _uncounted(shown: str) -> InputError:
    return InputError(
        f"{shown}: no {MANIFEST} or {TIMM_INFO} beside it states how many samples there are, and"
        " exact reading must know",
        "Run `simsiam-zoo index` where the shards are and publish what it writes beside them; or"
        " read them with --stream, with weaker guarantees.",
    )


def _shard_set(pairs: Iterable[tuple[str, StatedShard]], url: str) -> ShardSet:
    """The shards. Where no checksum is stated, the server is asked for size and version."""

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

    pairs = list(pairs)
    if not sum(stated.samples for _, stated in pairs):
        raise InputError(f"{redacted(url)} holds no images, as is stated there")
    with ThreadPoolExecutor(max_workers=16) as pool:
        shards = list(pool.map(sized, pairs))
    classes = {stated.classes for _, stated in pairs}
    return ShardSet(shards, classes.pop() if len(classes) == 1 else None, ShardCache())


def _read_folder(folder: str) -> dict[str, StatedShard]:
    """What the folder's files state of its shards, by name; empty where there are none."""
    return stated_by(
        lambda name: read_small(f"{folder}/{name}", MAX_MANIFEST_BYTES), redacted(folder)
    )
