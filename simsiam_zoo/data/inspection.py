"""What is in shards: counts, classes, sizes, formats, damage."""

from __future__ import annotations

import io
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from simsiam_zoo.data.class_order import class_order
from simsiam_zoo.data.decode import decode_any
from simsiam_zoo.data.index import load_index
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.data.tasks import run_tasks
from simsiam_zoo.errors import DataError

_AT_ONCE = 64
_SIZES_LISTED = 20


class Look(NamedTuple):
    """One image that was looked at."""

    id: int
    format: str
    width: int
    height: int
    problem: str | None


class Looks:
    """Images to be looked at, some at a time."""

    def __init__(self, shards: ShardSet, ids: Sequence[int]) -> None:
        self._shards = shards
        self._parts = [ids[at : at + _AT_ONCE] for at in range(0, len(ids), _AT_ONCE)]
        self._checks: tuple[int, Any] = (-1, ())

    def __len__(self) -> int:
        return len(self._parts)

    def run(self, number: int) -> list[Look]:
        """Look at one part of them."""
        return [self._look(id) for id in self._parts[number]]

    def _look(self, id: int) -> Look:
        try:
            image = bytes(self._shards.read(id).image)
            self._check(id, image)
            form, width, height = _header(image)
            decode_any(image)
        except DataError as error:
            return Look(id, "", 0, 0, error.what)
        return Look(id, form, width, height, None)

    def _check(self, id: int, image: bytes) -> None:
        place, row = self._shards.locate(id)
        if self._checks[0] != place:
            shard = self._shards.shards[place]
            self._checks = place, load_index(shard.index, shard.bytes).image_checks
        known = self._checks[1]
        if len(known) and known[row] != zlib.crc32(image):
            raise DataError("its bytes are not those of its checksum")


def inspect_shards(
    shards: ShardSet,
    most: int | None,
    jobs: int,
    progress: Callable[[int], None] = lambda images: None,
) -> dict[str, Any]:
    """Count what is in shards, and look at images: read, compare with its checksum, decode.

    Args:
        shards: what to look into.
        most: how many images, evenly spaced; None for all.
        jobs: processes.
        progress: told how many were looked at.

    Returns:
        What was found, as JSON holds it. `damaged` lists samples with what is wrong.
    """
    total = len(shards)
    count = total if most is None else min(total, most)
    ids = np.linspace(0, total - 1, count).round().astype(int).tolist()
    looks: list[Look] = []
    for _, part in run_tasks(tasks := Looks(shards, ids), len(tasks), jobs):
        looks += part
        progress(len(looks))
    looks.sort()
    good = [look for look in looks if look.problem is None]
    labels = shards.labels()
    parts = np.split(labels, shards.offsets[1:-1])
    known, counts = np.unique(labels[labels >= 0], return_counts=True)
    order = class_order(parts)
    return {
        "shards": len(shards.shards),
        "samples": total,
        "bytes": int(shards.shards.bytes.sum()),
        "labelled": int((labels >= 0).sum()),
        "labels": {str(k): int(n) for k, n in zip(known, counts, strict=True)},
        "class_order": None
        if order is None
        else {
            "classes_per_shard": round(order.found, 2),
            "if_shuffled": round(order.expected, 2),
            "ordered": order.ordered,
        },
        "looked_at": count,
        "formats": dict(Counter(look.format for look in good).most_common()),
        "sizes": dict(
            Counter(f"{look.width} x {look.height}" for look in good).most_common(_SIZES_LISTED)
        ),
        "width": _spread([look.width for look in good]),
        "height": _spread([look.height for look in good]),
        "damaged": [
            {"sample": _name(shards, look.id), "problem": look.problem}
            for look in looks
            if look.problem is not None
        ],
    }


def _header(image: bytes) -> tuple[str, int, int]:
    try:
        with Image.open(io.BytesIO(image), formats=("JPEG", "PNG", "WEBP")) as opened:
            return (opened.format or "").lower(), opened.width, opened.height
    except Exception as error:  # what Pillow raises for damaged files is not listed anywhere
        decode_any(image)  # says it better, mostly
        raise DataError(f"its header is damaged: {error}") from None


def _name(shards: ShardSet, id: int) -> str:
    try:
        return shards.name(id)
    except DataError:
        place, row = shards.locate(id)
        return f"{shards.shards[place].path}: sample {row}"


def _spread(values: list[int]) -> dict[str, int] | None:
    if not values:
        return None
    return {"min": min(values), "median": int(np.median(values)), "max": max(values)}
