"""What a folder of packed shards says about itself: `manifest.json`, and `_info.json` for timm."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from simsiam_zoo.data.remote.urls import expand
from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.runtime.folders import atomic_write_text

MANIFEST = "manifest.json"
TIMM_INFO = "_info.json"
PACKING = ".packing"
"""A folder in that of the shards, as long as they are not complete (`packing/job.py`)."""

MANIFEST_FORMAT = "simsiam-zoo shards"
MANIFEST_VERSION = 1
MAX_MANIFEST_BYTES = 1 << 27

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
    """The splits that the folder's manifest names; None where it has none, or a third party's.

    Raises:
        DataError: it is ours and damaged, or of a later version.
    """
    path = folder / MANIFEST
    return parse_manifest(_read(path), str(path))


def parse_manifest(content: bytes | None, where: str) -> dict[str, SplitInfo] | None:
    """`read_manifest`, of a manifest's bytes; `where` is what errors call it."""
    document = _parse(content, where)
    if document.get("format") != MANIFEST_FORMAT:
        return None
    if document.get("version") != MANIFEST_VERSION:
        raise DataError(
            f"{where} is of version {document.get('version')!r}; this simsiam-zoo reads"
            f" {MANIFEST_VERSION}",
            "Update simsiam-zoo, or pack the data again.",
        )
    try:
        return {str(name): _split(entry) for name, entry in document["splits"].items()}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{where} is damaged: {error}", "Pack the data again.") from None


def read_packed(folder: Path) -> dict[str, Any] | None:
    """How the folder's shards were made, as its manifest tells it; None where it does not."""
    document = _parse(_read(folder / MANIFEST), str(folder / MANIFEST))
    packed = document.get("packed")
    return (
        packed if document.get("format") == MANIFEST_FORMAT and isinstance(packed, dict) else None
    )


@dataclass(frozen=True, slots=True)
class CountedShard:
    """What an `_info.json` states of a shard; `split` is "" where it names none."""

    name: str
    samples: int
    split: str = ""


def read_info(folder: Path) -> dict[str, CountedShard]:
    """Shards by name, from an `_info.json` of timm's or webdataset's kind; empty without one.

    Raises:
        DataError: it cannot be read, or its counts are none.
    """
    path = folder / TIMM_INFO
    return parse_info(_read(path), str(path))


def parse_info(content: bytes | None, where: str) -> dict[str, CountedShard]:
    """`read_info`, of its bytes; `where` is what errors call it."""
    document = _parse(content, where)
    shards: list[CountedShard] = []
    try:
        for split, stated in (document.get("splits") or {}).items():
            names, counts = stated["filenames"], stated["shard_lengths"]
            names = expand(names) if isinstance(names, str) else names
            shards += (CountedShard(*pair, split) for pair in zip(names, counts, strict=True))
        for entry in document.get("shardlist") or ():
            name = str(entry["url"]).rpartition("/")[2]
            shards.append(CountedShard(name, entry["nsamples"]))
        for shard in shards:
            _check_name(shard.name)
            _check_count(shard.name, shard.samples)
    except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
        raise DataError(f"{where} is damaged: {error}", "Delete it, or write it anew.") from None
    return {shard.name: shard for shard in shards}


def _read(path: Path) -> bytes | None:
    """A file of bounded size; None where there is none."""
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise DataError(f"{path} is absurdly large")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _parse(content: bytes | None, where: str) -> dict[str, Any]:
    try:
        document = {} if content is None else json.loads(content)
    except (ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"{where} is damaged: {error}") from None
    return document if isinstance(document, dict) else {}


def _split(entry: Mapping[str, Any]) -> SplitInfo:
    shards = tuple(_shard(shard) for shard in entry["shards"])
    classes = entry["classes"]
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if classes is not None and not named:
        raise ValueError("class names must be a list of strings")
    if len({shard.name for shard in shards}) != len(shards):
        raise ValueError("a shard is named twice")
    split = SplitInfo(shards, None if classes is None else tuple(classes))
    if split.samples != entry["samples"]:
        raise ValueError("its counts do not add up")
    return split


def _shard(entry: Mapping[str, Any]) -> ShardInfo:
    shard = ShardInfo(entry["name"], entry["samples"], entry["bytes"], entry["sha256"])
    _check_name(shard.name)
    for number in (shard.samples, shard.bytes):
        _check_count(shard.name, number)
    if shard.sha256 is not None and not _SHA256.match(str(shard.sha256)):
        raise ValueError(f"{shard.name}: its sha256 is no checksum")
    return shard


def _check_name(name: object) -> None:
    """A plain file name: it stays in its folder, is not hidden, and can be shown."""
    plain = isinstance(name, str) and name.endswith(".tar") and name.isprintable()
    if not plain or str(name).startswith(".") or "/" in str(name) or "\\" in str(name):
        raise ValueError(f"{name!r:.80} is no shard's name")


def _check_count(name: str, number: object) -> None:
    if type(number) is not int or not 0 <= number < 1 << 62:
        raise ValueError(f"{name}: {number!r} is no count")


TRAIN = ("train", "training", "trn")
TEST = ("val", "validation", "valid", "test", "testing", "dev", "eval")
"""Words for splits by what they are for; of those to test on, the first that is there is taken."""

_T = TypeVar("_T")


def split_word(name: str) -> str:
    """The word of `TRAIN` or `TEST` in a name (`imagenet1k-train-0001.tar`); "" where none is.

    Raises:
        InputError: there are words for both.
    """
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word in TRAIN + TEST]
    if len({word in TRAIN for word in words}) > 1:
        raise InputError(
            f"{name} is named for training and for testing: it is not clear what it is for",
            "Rename it, or name the shards to train on by a pattern, and those to test on by"
            " the data set's `test`.",
        )
    return words[0] if words else ""


def by_purpose(
    shards: Sequence[_T], name: Callable[[_T], str], stated: Mapping[str, str]
) -> tuple[list[_T], list[_T], list[_T]]:
    """Shards for training, shards for testing, and those that are for neither.

    Args:
        shards: of one folder, in order.
        name: of a shard.
        stated: split by shard name, as files beside the shards state it; else the name tells.
            Where no name says "train", those that nothing is said of are for training.

    Raises:
        InputError: a name does not tell what the shard is for.
    """
    known = {name(shard): stated.get(name(shard)) for shard in shards}
    word = {one: split_word(split or one) for one, split in known.items()}
    named = any(split_word(name(shard)) in TRAIN for shard in shards)
    unsaid = {one for one, split in known.items() if not (named or split or word[one])}
    train = [s for s in shards if word[name(s)] in TRAIN or name(s) in unsaid]
    train = train or [shard for shard in shards if not word[name(shard)]]
    first = next((each for each in TEST if each in word.values()), None)
    test = [shard for shard in shards if first and word[name(shard)] == first]
    taken = {name(shard) for shard in train + test}
    return train, test, [shard for shard in shards if name(shard) not in taken]
