"""What the tests of remote shards do with them; the fixtures are in conftest.py."""

from __future__ import annotations

import os
from pathlib import Path

from simsiam_zoo.data.remote.cache import ShardCache
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.data.stated import Shard


def contents(shards: ShardSet) -> list[tuple[str, bytes, int]]:
    samples = [shards.read(i) for i in range(len(shards))]
    return [(s.key, bytes(s.image), s.label) for s in samples]


def fetch(url: str, path: Path, checksum: bool = True) -> bytes:
    """The file behind a URL, through the cache; `path` is what it should be."""
    train = open_shards(str(path.parent)).train
    place = [shard.name for shard in train.shards].index(path.name)
    info = train.shards[place]
    shard = Shard(url, info.samples, info.bytes, info.sha256 if checksum else None)
    descriptor = ShardCache().open(shard)
    try:
        return os.pread(descriptor, info.bytes + 1, 0)
    finally:
        os.close(descriptor)
