"""Which shards a user's words name: a folder, a tar, a glob or a brace pattern."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from simsiam_zoo.data.manifest import PACKING
from simsiam_zoo.data.remote.urls import check_url, expand, is_url, redacted
from simsiam_zoo.errors import InputError

TRAIN, TEST = ("train",), ("val", "validation", "test")
"""Prefixes of shard names (`train-000000.tar`) by what they are for."""


T = TypeVar("T")


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


def is_remote(source: str) -> bool:
    """Whether `source` is an allowed URL; False for what is a path.

    Raises:
        InputError: it is neither: a command, a pipe, another scheme, a URL with a secret.
    """
    if source.strip() in ("", "-") or source.lstrip().startswith("pipe:"):
        shown = source if len(source) < 10 else f"{source[:5]}..."  # commands may hold tokens
        raise InputError(
            f"the data source {shown!r} is refused: commands and pipes are never run",
            "Name a folder of shards, a tar, or a pattern such as train-{000000..000009}.tar.",
        )
    if not is_url(source):
        return False
    check_url(source.strip())
    return True


def _local(source: str) -> Path:
    if is_remote(source):
        raise InputError(
            f"{redacted(source)} is remote, and this needs shards on disk",
            "Download the shards and name their folder.",
        )
    return Path(source).expanduser()


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


def by_purpose(shards: Sequence[T], name: Callable[[T], str]) -> tuple[list[T], list[T]]:
    """Shards for training and for testing, told apart by their names' prefixes."""
    train = _with_prefix(shards, name, TRAIN)
    test = _with_prefix(shards, name, TEST)
    if not train:
        named = set(map(name, test))
        train = [one for one in shards if name(one) not in named]
    return train, test


def _with_prefix(
    shards: Sequence[T], name: Callable[[T], str], prefixes: tuple[str, ...]
) -> list[T]:
    for prefix in prefixes:
        found = [one for one in shards if name(one).startswith(f"{prefix}-")]
        if found:
            return found
    return []


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
