"""Which shards a user's words name: a folder, a tar, a glob or a brace pattern."""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from simsiam_zoo.data.manifest import PACKING
from simsiam_zoo.errors import InputError

MAX_EXPANSION = 1_000_000
"""Most shards that one pattern may name."""

TRAIN, TEST = ("train",), ("val", "validation", "test")
"""Prefixes of shard names (`train-000000.tar`) by what they are for."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two letters or more: C:\ is a Windows path
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})\Z")


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


def _local(source: str) -> Path:
    if source.strip() in ("", "-") or source.lstrip().startswith("pipe:"):
        raise InputError(
            f"the data source {source!r} is refused: commands and pipes are never run",
            "Name a folder of shards, a tar, or a pattern such as train-{000000..000009}.tar.",
        )
    if _SCHEME.match(source):
        raise InputError(
            f"{_without_secrets(source)}: remote shards are not supported yet",
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
    train = _with_prefix(tars, TRAIN)
    test = _with_prefix(tars, TEST)
    return (train, test) if train else ([path for path in tars if path not in test], test)


def _with_prefix(tars: list[Path], prefixes: tuple[str, ...]) -> list[Path]:
    for prefix in prefixes:
        found = [path for path in tars if path.name.startswith(f"{prefix}-")]
        if found:
            return found
    return []


def _matching(source: str, path: Path) -> list[Path]:
    if "{" in source:
        names = list(itertools.islice(_expand(str(path), source), MAX_EXPANSION + 1))
        if len(names) > MAX_EXPANSION:
            raise InputError(f"{source} names more than {MAX_EXPANSION:,} shards")
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


def _expand(pattern: str, source: str) -> Iterator[str]:
    """The names that a brace pattern spells, made one by one: a huge pattern costs nothing."""
    begin = pattern.find("{")
    if begin < 0:
        return iter([pattern])
    end = pattern.find("}", begin)
    inside = pattern[begin + 1 : end] if end > 0 else ""
    numbers = _RANGE.match(inside)
    if not inside or "{" in inside:
        raise InputError(f"{source}: the braces do not match (they cannot be nested)")
    choices: Iterable[str] = inside.split(",")
    if numbers:
        width = len(numbers[1])
        span = range(int(numbers[1]), int(numbers[2]) + 1)
        choices = (f"{n:0{width}d}" for n in span)
    rest = pattern[end + 1 :]
    return itertools.chain.from_iterable(
        (pattern[:begin] + choice + tail for tail in _expand(rest, source)) for choice in choices
    )


def _without_secrets(source: str) -> str:
    """A URL as it may be printed: neither user info nor query."""
    scheme, _, rest = source.partition(":")
    rest = re.sub(r"^//[^/@]*@", "//", rest)
    return f"{scheme}:{rest.split('?', 1)[0].split('#', 1)[0]}"
