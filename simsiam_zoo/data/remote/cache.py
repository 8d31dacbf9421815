"""Remote shards on local disk: fetched whole, checked, shared by processes, bounded in bytes.

    <cache>/shards/<key>-<bytes>.tar    a whole shard; removed when room is needed, oldest use first
                   <key>-<bytes>.part   one that is coming, or was when its process died
                   <key>-<bytes>.lock   held by whoever fetches it
    <cache>/indexes/<key>-<bytes>.safetensors   its members; kept, at some 60 bytes per image

A name says how large its file will be, so that what is still coming is counted as if it were there.
A shard is pinned by a shared flock on its file, which ends with the process, however that ends;
one that is open stays readable when it is removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from simsiam_zoo.data.remote.transfer import download
from simsiam_zoo.data.scan import scan
from simsiam_zoo.data.stated import Shard
from simsiam_zoo.errors import DataError, ZooError
from simsiam_zoo.runtime.folders import cache_dir, unwritable_cache

DEFAULT_BYTES = 50 * 10**9
ROOM_SECONDS = 120.0
"""How long to wait for room that other runs hold."""

_NAME = re.compile(r"[0-9a-f]{32}-(\d{1,19})\.(tar|part)\Z")


class ShardCache:
    """The cache as one process sees it; it can be sent to workers.

    `limit` is the most bytes of shards on disk, whole and coming together.
    """

    def __init__(self, limit: int = DEFAULT_BYTES) -> None:
        self.limit = limit
        self._root = cache_dir()
        self._folder = self._root / "shards"

    def path(self, shard: Shard) -> Path:
        """Where the shard lies when it is there."""
        return self._folder / f"{_key(shard)}.tar"

    def index(self, shard: Shard) -> Path:
        """Where its index lies once it has been there."""
        return self._root / "indexes" / f"{_key(shard)}.safetensors"

    def open(self, shard: Shard) -> int:
        """A descriptor of the shard, fetched if it is not there; its index is there then too.

        Waits for another process that is fetching it. Raises DataError where it cannot be had, is
        damaged, or there is no room for it; InputError where the cache cannot be written.
        """
        path = self.path(shard)
        while True:
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                self._fetch(shard)
                continue
            except OSError as error:
                raise DataError(f"{path} cannot be opened: {error.strerror}") from None
            if self.index(shard).is_file():
                with suppress(OSError):
                    os.utime(path)
                return descriptor
            os.close(descriptor)  # somebody has tidied up
            self._fetch(shard)

    def hold(self, shard: Shard) -> int:
        """`open`, and pin the shard for as long as the descriptor is open."""
        while True:
            descriptor = self.open(shard)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if os.fstat(descriptor).st_nlink:
                return descriptor
            os.close(descriptor)  # removed just before

    def discard(self, shard: Shard) -> None:
        """Remove the shard and its index: what is there is damaged. Readers keep what is open."""
        for path in (self.path(shard), self.index(shard)):
            path.unlink(missing_ok=True)

    def _fetch(self, shard: Shard) -> None:
        path = self.path(shard)
        part = path.with_suffix(".part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if path.exists():
                    if not self.index(shard).is_file():
                        self._make_index(shard, path)
                    return
                self._reserve(shard, part)
                download(shard.location, part, shard.bytes, shard.sha256, shard.version)
                try:
                    self._make_index(shard, part)
                except ZooError:  # kept for another try if its end is missing, never if it is wrong
                    part.unlink(missing_ok=True)
                    raise
                os.replace(part, path)
        except OSError as error:
            raise unwritable_cache(
                f"the cache of shards {self._folder} cannot be used", error
            ) from None

    def _make_index(self, shard: Shard, file: Path) -> None:
        try:
            index = scan(file, checksums=True)  # it was just written, and is in memory still
        except ZooError as error:
            raise DataError(error.what.replace(str(file), shard.where), error.hint) from None
        if len(index) != shard.samples:
            raise DataError(
                f"{shard.where} holds {len(index)} samples, and {shard.samples} are stated",
                "Pack or index the shards again.",
            )
        path = self.index(shard)
        path.parent.mkdir(exist_ok=True)
        index.save(path)

    def _reserve(self, shard: Shard, part: Path) -> None:
        """Make the part, once there is room for all of it."""
        until = time.monotonic() + ROOM_SECONDS
        while True:
            with FileLock(self._folder / ".lock"):
                # A part of a try that was interrupted is counted already.
                if part.exists() or self._make_room(shard.bytes):
                    part.touch()
                    return
            if time.monotonic() > until:
                raise DataError(
                    f"there is no room for {shard.where}: the cache of"
                    f" {self.limit / 1e9:g} GB is full of shards in use",
                    "Raise data.cache_gb; runs at one time need room for the windows of each.",
                )
            time.sleep(0.2)

    def _make_room(self, size: int) -> bool:
        """Remove shards, the longest unused first, until `size` bytes fit. Under the lock."""
        files = []
        for path in self._folder.iterdir():
            if match := _NAME.match(path.name):
                with suppress(OSError):
                    files.append((path.stat().st_mtime, path, int(match[1])))
        used = sum(stated for *_, stated in files)
        for _, path, stated in sorted(files):
            if used + size <= self.limit:
                break
            if _remove_unused(path):
                used -= stated
        return used + size <= self.limit


def _key(shard: Shard) -> str:
    """What its files in the cache are called: shards of equal names elsewhere do not clash."""
    identity = f"{shard.location}\0{shard.sha256 or shard.version or '-'}"
    return f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}-{shard.bytes}"


def _remove_unused(path: Path) -> bool:
    """Remove a shard that nobody has pinned, or a part that nobody is fetching."""
    if path.suffix == ".part":
        try:
            with FileLock(path.with_suffix(".lock"), timeout=0):
                path.unlink(missing_ok=True)
        except Timeout:
            return False
        return True
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
