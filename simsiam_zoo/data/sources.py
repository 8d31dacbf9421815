"""Which shards a user's words name: a folder, a tar, a glob or a brace pattern."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Protocol, TypeVar

from simsiam_zoo.data.manifest import PACKING
from simsiam_zoo.data.remote.urls import check_url, expand, is_url, redacted
from simsiam_zoo.errors import InputError

TRAIN, TEST = ("train",), ("val", "validation", "test")
"""Prefixes of shard names (`train-000000.tar`) by what they are for."""


class Named(Protocol):
    """Whatever has a shard's name."""

    @property
    def name(self) -> str:
        """Its name, without a folder."""


N = TypeVar("N", bound=Named)


def find_shards(source: str) -> tuple[list[Path], list[Path]]:
    """The shards for training and for testing that `source` names, each sorted by name.

    A folder: its `train-*.tar`, and its `val-*.tar`, else `validation-*` or `test-*.tar`; a folder
    without such names: all of its tars, for training. One tar, a glob or a brace pattern
    (`train-{000000..000146}.tar`): those shards, for training.

    Raises:
        InputError: nothing is there, or the source is remote or a command.
    """
    path = _local(source)
    if path.is_dir():
        train, test = _in_folder(path)
    elif path.is_file():
        train, test = [path], []
    else:
        train, test = _matching(source, path), []
    for folder in {shard.parent for shard in train + test}:
        _refuse_unfinished(folder)
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


def _in_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    tars = sorted(path for path in folder.iterdir() if path.suffix == ".tar" and path.is_file())
    if not tars:
        raise InputError(
            f"{folder} holds no shards: looked for train-*.tar and val-*.tar, then for *.tar"
        )
    return by_purpose(tars)


def by_purpose(shards: list[N]) -> tuple[list[N], list[N]]:
    """Shards for training and for testing, told apart by their names' prefixes."""
    train = _with_prefix(shards, TRAIN)
    test = _with_prefix(shards, TEST)
    return (train, test) if train else ([one for one in shards if one not in test], test)


def _with_prefix(shards: list[N], prefixes: tuple[str, ...]) -> list[N]:
    for prefix in prefixes:
        found = [one for one in shards if one.name.startswith(f"{prefix}-")]
        if found:
            return found
    return []


def _matching(source: str, path: Path) -> list[Path]:
    if "{" in source:
        names = expand(str(path))
        missing = [name for name in names if not Path(name).is_file()]
        if missing:
            raise InputError(
                f"{len(missing)} of the {len(names)} shards that {source} names are missing,"
                f" the first is {missing[0]}"
            )
        return [Path(name) for name in names]
    found = [match for match in map(Path, sorted(glob.glob(str(path)))) if match.is_file()]
    if not found:
        raise InputError(
            f"no data at {source}: no such folder, tar or match of the pattern",
            "Name a folder of shards, a tar, or a pattern such as train-{000000..000009}.tar.",
        )
    return found
