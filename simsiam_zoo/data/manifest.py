"""What a folder of packed shards says about itself: `manifest.json`, and `_info.json` for timm."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from simsiam_zoo.data.index import Count, printable
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


def plain_name(name: str) -> str:
    """A shard's name that stays in its folder, is not hidden, and can be shown; else ValueError."""
    plain = name.endswith(".tar") and name.isprintable() and not name.startswith(".")
    if not plain or "/" in name or "\\" in name:
        raise ValueError(f"{name!r:.80} is no shard's name")
    return name


Name = Annotated[str, AfterValidator(plain_name)]


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One shard: a file's name without a folder, and what it holds."""

    name: Name
    samples: Count
    bytes: Count
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    """None where nobody has read it whole."""


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
    """Where the index of a packed shard lies: `a.tar` → `a.index.safetensors`."""
    return shard.with_name(shard.stem + ".index.safetensors")


Splits = Mapping[str, SplitInfo]


def write_manifest(folder: Path, splits: Splits, packed: Mapping[str, Any] | None = None) -> None:
    """Write `_info.json` and then `manifest.json`, which says that the folder is complete.

    `packed` tells people how the shards were made: source, seed, resizing.
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


def write_counts(folder: Path, splits: Splits, packed: Mapping[str, Any] | None = None) -> None:
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
    document |= {} if packed is None else {"packed": packed}
    atomic_write_text(folder / MANIFEST, json.dumps(document, indent=1) + "\n")


def read_manifest(folder: Path) -> dict[str, SplitInfo] | None:
    """The splits that the folder's manifest names; None where it has none, or a third party's.

    Raises DataError where it is ours and damaged, or of a later version.
    """
    return _parse_manifest(_read(folder / MANIFEST), str(folder / MANIFEST))


def _parse_manifest(content: bytes | None, where: str) -> dict[str, SplitInfo] | None:
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
        splits = TypeAdapter(dict[str, SplitInfo]).validate_python(document.get("splits"))
        for name, split in splits.items():
            if len({shard.name for shard in split.shards}) != len(split.shards):
                raise ValueError(f"{name}: a shard is named twice")
            if split.samples != document["splits"][name].get("samples"):
                raise ValueError(f"{name}: its counts do not add up")
    except ValueError as error:
        raise DataError(f"{where} is damaged: {_first(error)}", "Pack the data again.") from None
    return splits


def _first(error: Exception) -> str:
    """The first of the problems that pydantic found, and where, or what another error says."""
    text = str(error)
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        text = f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return printable(text.encode("utf-8", "backslashreplace"))


def read_packed(folder: Path) -> dict[str, Any] | None:
    """How the folder's shards were made, as its manifest tells it; None where it does not."""
    document = _parse(_read(folder / MANIFEST), str(folder / MANIFEST))
    packed = document.get("packed")
    ours = document.get("format") == MANIFEST_FORMAT and isinstance(packed, dict)
    return packed if ours else None


class StatedShard(NamedTuple):
    """What the files of a folder state of a shard; `split` is "" where they name none."""

    name: str
    samples: int
    bytes: int | None = None
    sha256: str | None = None
    classes: tuple[str, ...] | None = None
    split: str = ""


def stated_shards(folder: Path) -> dict[str, StatedShard]:
    """Shards by name, as the folder's manifest states them, or else its `_info.json`."""
    return stated_by(lambda name: _read(folder / name), str(folder))


def stated_by(read: Callable[[str], bytes | None], shown: str) -> dict[str, StatedShard]:
    """`stated_shards` of any folder, which errors call `shown`.

    `read` gives the content of a file in it, None where there is none. Raises DataError where what
    is stated is damaged.
    """
    splits = _parse_manifest(read(MANIFEST), f"{shown}/{MANIFEST}")
    if splits is None:
        return _parse_info(read(TIMM_INFO), f"{shown}/{TIMM_INFO}")
    return {
        s.name: StatedShard(s.name, s.samples, s.bytes, s.sha256, of.classes, split)
        for split, of in splits.items()
        for s in of.shards
    }


def _parse_info(content: bytes | None, where: str) -> dict[str, StatedShard]:
    """Shards by name, from an `_info.json` of timm's or webdataset's kind."""
    document = _parse(content, where)
    shards: list[StatedShard] = []
    check = TypeAdapter(tuple[Name, Count]).validate_python
    try:
        for split, stated in (document.get("splits") or {}).items():
            names, counts = stated["filenames"], stated["shard_lengths"]
            names = expand(names) if isinstance(names, str) else names
            pairs = (check(pair) for pair in zip(names, counts, strict=True))
            shards += (StatedShard(*pair, split=str(split)) for pair in pairs)
        for entry in document.get("shardlist") or ():
            name = str(entry["url"]).rpartition("/")[2]
            shards.append(StatedShard(*check((name, entry["nsamples"]))))
    except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
        problem = f"{where} is damaged: {_first(error)}"
        raise DataError(problem, "Delete it, or write it anew.") from None
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
        raise DataError(f"{where} is damaged: {error}", "Copy it again, or pack anew.") from None
    return document if isinstance(document, dict) else {}


TRAIN = ("train", "training", "trn")
TEST = ("val", "validation", "valid", "test", "testing", "dev", "eval")
"""Words for splits by what they are for; of those to test on, the first that is there is taken."""


def split_word(name: str) -> str:
    """The word of `TRAIN` or `TEST` in a name (`imagenet1k-train-0001.tar`); "" where none is.

    Raises InputError where there are words for both.
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
    names: Sequence[str], stated: Mapping[str, str]
) -> tuple[list[str], list[str], list[str]]:
    """Shards of one folder for training, those for testing, and those for neither, in order.

    `stated` are splits by name; else the name tells. Where no name says "train", those that
    nothing is said of are for training. Raises InputError where a name is for both.
    """
    word = {name: split_word(stated.get(name) or name) for name in names}
    named = any(split_word(name) in TRAIN for name in names)
    unsaid = {one for one in names if not (named or stated.get(one) or word[one])}
    train = [name for name in names if word[name] in TRAIN or name in unsaid]
    train = train or [name for name in names if not word[name]]
    first = next((each for each in TEST if each in word.values()), None)
    test = [name for name in names if first and word[name] == first]
    taken = {*train, *test}
    return train, test, [name for name in names if name not in taken]
