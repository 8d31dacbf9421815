"""What a folder of packed shards says about itself: `manifest.json`, and `_info.json` for timm."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from simsiam_zoo.errors import DataError
from simsiam_zoo.runtime.folders import atomic_write_text

MANIFEST = "manifest.json"
TIMM_INFO = "_info.json"
PACKING = ".packing"
"""A folder in that of the shards, as long as they are not complete (`packing/job.py`)."""

MANIFEST_FORMAT = "simsiam-zoo shards"
MANIFEST_VERSION = 1
MAX_MANIFEST_BYTES = 1 << 27

_SHARD_NAME = re.compile(r"[\w][\w.+-]*\.tar\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One shard: a file's name without a folder, and what it holds."""

    name: str
    samples: int
    bytes: int
    sha256: str | None  # None where nobody has read it whole


@dataclass(frozen=True)
class SplitInfo:
    """The shards of one split, and the names of the classes where they are known."""

    shards: tuple[ShardInfo, ...]
    classes: tuple[str, ...] | None = None

    @property
    def samples(self) -> int:
        """Samples in all its shards."""
        return sum(shard.samples for shard in self.shards)


def index_path(shard: Path) -> Path:
    """Where the index of a packed shard lies: `train-000000.tar` → `train-000000.index.npz`."""
    return shard.with_name(shard.stem + ".index.npz")


def write_manifest(
    folder: Path, splits: Mapping[str, SplitInfo], packed: Mapping[str, Any] | None = None
) -> None:
    """Write `_info.json` and then `manifest.json`, which says that the folder is complete.

    Args:
        folder: of the shards.
        splits: what it holds.
        packed: how the shards were made, for people: source, seed, resizing.
    """
    timm = {
        name: {
            "name": name,
            "num_samples": split.samples,
            "filenames": [shard.name for shard in split.shards],
            "shard_lengths": [shard.samples for shard in split.shards],
        }
        for name, split in splits.items()
    }
    atomic_write_text(folder / TIMM_INFO, json.dumps({"splits": timm}, indent=1) + "\n")
    write_counts(folder, splits, packed)


def write_counts(
    folder: Path, splits: Mapping[str, SplitInfo], packed: Mapping[str, Any] | None = None
) -> None:
    """Write `manifest.json` alone."""
    ours = {
        name: {
            "samples": split.samples,
            "classes": split.classes,
            "shards": [asdict(shard) for shard in split.shards],
        }
        for name, split in splits.items()
    }
    document = {"format": MANIFEST_FORMAT, "version": MANIFEST_VERSION, "splits": ours}
    if packed is not None:
        document["packed"] = packed
    atomic_write_text(folder / MANIFEST, json.dumps(document, indent=1) + "\n")


def read_manifest(folder: Path) -> dict[str, SplitInfo] | None:
    """The splits that the folder's manifest names; None where it has none (or a stranger's).

    Raises:
        DataError: it is ours and damaged, or of a later version.
    """
    path = folder / MANIFEST
    document = _read(path)
    if document.get("format") != MANIFEST_FORMAT:
        return None
    if document.get("version") != MANIFEST_VERSION:
        raise DataError(
            f"{path} is of version {document.get('version')!r}; this simsiam-zoo reads"
            f" {MANIFEST_VERSION}",
            "Update simsiam-zoo, or pack the data again.",
        )
    try:
        return {str(name): _split(entry) for name, entry in document["splits"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged: {error}", "Pack the data again.") from None


def read_packed(folder: Path) -> dict[str, Any] | None:
    """How the folder's shards were made, as its manifest tells it; None where it does not."""
    document = _read(folder / MANIFEST)
    packed = document.get("packed")
    return (
        packed if document.get("format") == MANIFEST_FORMAT and isinstance(packed, dict) else None
    )


def read_info(folder: Path) -> dict[str, int] | None:
    """Samples by shard name, from an `_info.json` of timm's or webdataset's kind; None without one.

    Raises:
        DataError: it cannot be read, or its counts are none.
    """
    path = folder / TIMM_INFO
    document = _read(path)
    try:
        counts: dict[str, int] = {}
        for split in document.get("splits", {}).values():
            pairs = zip(split["filenames"], split["shard_lengths"], strict=True)
            counts |= {str(name): samples for name, samples in pairs}
        for entry in document.get("shardlist", ()):
            counts[str(entry["url"]).rpartition("/")[2]] = entry["nsamples"]
        for name, samples in counts.items():
            _check_count(name, samples)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged: {error}", "Delete it, or write it anew.") from None
    return counts or None


def _read(path: Path) -> dict[str, Any]:
    """A JSON object from a file of bounded size; empty where there is none."""
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise DataError(f"{path} is absurdly large")
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    return document if isinstance(document, dict) else {}


def _split(entry: Mapping[str, Any]) -> SplitInfo:
    shards = tuple(_shard(shard) for shard in entry["shards"])
    classes = entry["classes"]
    if classes is not None and not all(isinstance(name, str) for name in classes):
        raise ValueError("class names must be strings")
    if len({shard.name for shard in shards}) != len(shards):
        raise ValueError("a shard is named twice")
    split = SplitInfo(shards, None if classes is None else tuple(classes))
    if split.samples != entry["samples"]:
        raise ValueError("its counts do not add up")
    return split


def _shard(entry: Mapping[str, Any]) -> ShardInfo:
    shard = ShardInfo(entry["name"], entry["samples"], entry["bytes"], entry["sha256"])
    if not _SHARD_NAME.match(shard.name):
        raise ValueError(f"{shard.name!r} is no shard's name")
    for number in (shard.samples, shard.bytes):
        _check_count(shard.name, number)
    if shard.sha256 is not None and not _SHA256.match(shard.sha256):
        raise ValueError(f"{shard.name}: its sha256 is no checksum")
    return shard


def _check_count(name: str, number: object) -> None:
    if type(number) is not int or not 0 <= number < 1 << 62:
        raise ValueError(f"{name}: {number!r} is no count")


TRAIN, TEST = ("train",), ("val", "validation", "test")
"""Prefixes of shard names (`train-000000.tar`) by what they are for."""


_T = TypeVar("_T")


def by_purpose(shards: Sequence[_T], name: Callable[[_T], str]) -> tuple[list[_T], list[_T]]:
    """Shards for training and for testing, told apart by their names' prefixes."""
    train = _with_prefix(shards, name, TRAIN)
    test = _with_prefix(shards, name, TEST)
    if not train:
        named = set(map(name, test))
        train = [one for one in shards if name(one) not in named]
    return train, test


def _with_prefix(
    shards: Sequence[_T], name: Callable[[_T], str], prefixes: tuple[str, ...]
) -> list[_T]:
    for prefix in prefixes:
        found = [one for one in shards if name(one).startswith(f"{prefix}-")]
        if found:
            return found
    return []
