"""Images that are named in place of shards: packed once into the user's cache, then read as shards.

    <cache>/packed/<key>/         shards, as `simsiam-zoo pack` makes them
                   <key>.lock     held by whoever packs them or removes them
                   <key>.unpacked/   what an archive holds, while it is packed

The key is a hash of the source's path and of the names, sizes and times of its files: what changed
is packed anew. The bytes, and so the digest of the data, follow from names and contents alone.
The least recently used data sets are removed where room is needed, but for those in use: each
process that reads one holds a shared flock on its manifest.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

from filelock import FileLock, Timeout

from simsiam_zoo.data.manifest import MANIFEST, PACKING, TIMM_INFO, read_manifest, read_packed
from simsiam_zoo.data.packing.archives import is_archive, unpacked
from simsiam_zoo.data.packing.formats import open_original
from simsiam_zoo.data.packing.job import DAMAGED, PackOptions, pack_original
from simsiam_zoo.data.packing.writer import Original
from simsiam_zoo.data.scan import IMAGE_ENDINGS
from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.runtime.folders import cache_dir, unwritable_cache
from simsiam_zoo.runtime.machine import available_cores
from simsiam_zoo.runtime.progress import open_progress, tell

LIMIT_VARIABLE = "SIMSIAM_ZOO_PACKED_GB"
DEFAULT_GB = 50.0

_VERSION = 1  # of what a key is made of
_CLASSES_SHOWN = 5
_LINKED_DEPTH = 2  # links to the folders of splits and classes are followed, as `pack` does
_FOLDERS_TRIED = 20
_FEW_IMAGES = 500

_pinned: dict[str, int] = {}  # descriptors by key, open for as long as this process lives


def is_unpacked(source: Path) -> bool:
    """Whether a path is to be packed before it is read: an archive, or a folder without shards."""
    if not source.is_dir():
        return is_archive(source)
    try:
        names = set(os.listdir(source))
    except OSError:
        return False  # who looks for shards in it has the message
    shards = any(name.endswith(".tar") and not name.startswith(".") for name in names)
    return not shards and not names & {MANIFEST, TIMM_INFO, PACKING}


def note_images_beside(folder: Path) -> list[str]:
    """What a person should know of images in a folder of shards, which are not read; or nothing."""
    with suppress(OSError):
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        below = [path for path in paths if path.is_dir()][:_FOLDERS_TRIED]
        for path in chain(paths, *(sorted(each.iterdir()) for each in below)):
            if os.fsencode(path.suffix[1:].lower()) in IMAGE_ENDINGS and path.is_file():
                found = path.relative_to(folder)
                return [
                    f"{folder} holds shards and images ({found}): the shards are read. To read the"
                    " images, move the shards away"
                ]
    return []


def pack_once(source: Path) -> tuple[Path, list[str]]:
    """The folder of shards that a source was packed into, now or before; and notes on it.

    It is not removed as long as this process lives. Where another process is packing the same,
    this one waits for it.

    Raises:
        InputError: there are no images, it is not clear which are for what, or there is no room.
        DataError: no image can be decoded, or the source is damaged.
        StoppedError: a signal asked to stop.
    """
    try:
        key, size = _key(source)
    except OSError as error:
        raise InputError(
            f"{os.fsdecode(error.filename or source)} cannot be read: {error.strerror or error}",
            "Give yourself the right to read it, or name another folder.",
        ) from None
    root = cache_dir() / "packed"
    folder = root / key
    try:
        root.mkdir(exist_ok=True)
        with _alone(folder, source):
            if not _is_whole(folder):
                if (folder / MANIFEST).exists():  # shards were taken out of it
                    shutil.rmtree(folder)
                _pack(source, folder, size)
            _pin(folder)
    except OSError as error:
        if not _is_whole(folder):  # a cache that can only be read will do where it is
            raise unwritable_cache(f"{source} cannot be packed into {folder}", error) from None
    if not (damaged := sum(dict((read_packed(folder) or {}).get("damaged") or {}).values())):
        return folder, []
    total = damaged + sum(split.samples for split in (read_manifest(folder) or {}).values())
    left_out = f"{damaged:,} of the {total:,} images of {source} cannot be decoded and are left out"
    return folder, [f"{left_out}: {folder / DAMAGED} lists them"]


def _key(source: Path) -> tuple[str, int]:
    """A hash of what is there, and the bytes of it."""
    total, digest = 0, hashlib.sha256(f"{_VERSION}\0{os.path.abspath(source)}\n".encode())
    for name, status in _listing(source):
        total += status.st_size
        line = f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32], total


def _listing(
    source: Path, prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, os.stat_result]]:
    """Every file that is not hidden, by its path below the source."""
    if not source.is_dir():
        yield prefix, source.stat()
        return
    with os.scandir(source) as entries:
        found = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    for entry in found:
        name = f"{prefix}{entry.name}"
        if entry.is_file():
            yield name, entry.stat()
        elif entry.is_dir(follow_symlinks=depth < _LINKED_DEPTH):
            yield from _listing(Path(entry.path), f"{name}/", depth + 1)


@contextmanager
def _alone(folder: Path, source: Path) -> Iterator[None]:
    """Hold the lock of a folder in the cache; say so where that takes a while."""
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=1)
    except Timeout:
        tell(f"waiting for another process that packs {source}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _is_whole(folder: Path) -> bool:
    try:
        splits = read_manifest(folder)
        shards = [shard for split in (splits or {}).values() for shard in split.shards]
        return bool(shards) and all(
            (folder / shard.name).stat().st_size == shard.bytes for shard in shards
        )
    except (OSError, DataError):
        return False


def _pack(source: Path, folder: Path, size: int) -> None:
    limit = _limit()
    _make_room(folder, source, 2 * size if is_archive(source) else size, limit)
    free = min(limit, shutil.disk_usage(folder.parent).free)
    with unpacked(source, folder.with_suffix(".unpacked"), lambda: free) as images:
        original = open_original(images)
        tell(f"packing {source} into the cache, once: {_words(original)}")
        total = sum(len(split) for split in original.splits.values())
        # Starting processes costs more than a few images do.
        jobs = available_cores() if total > _FEW_IMAGES else 1
        pack_original(original, folder, PackOptions(), jobs, open_progress())


def _words(original: Original) -> str:
    """`48 training and 12 test images, 3 classes: ant, bee, wasp`."""
    purposes = {"train": "training", "val": "test", "unlabeled": "unlabelled"}
    named = [f"{len(split):,} {purposes[name]}" for name, split in original.splits.items()]
    counts = " and ".join(named)
    labelled = any(int(split.labels.max(initial=-1)) >= 0 for split in original.splits.values())
    if not labelled:
        return f"{counts} images, no labels"
    if not original.classes:
        return f"{counts} images, labelled"
    shown = ", ".join(original.classes[:_CLASSES_SHOWN])
    more = ", ..." if len(original.classes) > _CLASSES_SHOWN else ""
    count = len(original.classes)
    return f"{counts} images, {count:,} {'class' if count == 1 else 'classes'}: {shown}{more}"


def _limit() -> int:
    """The most bytes of packed data sets."""
    stated = os.environ.get(LIMIT_VARIABLE) or str(DEFAULT_GB)
    try:
        limit = float(stated)
        if not 0 < limit < 1e9:
            raise ValueError
    except ValueError:
        raise InputError(f"{LIMIT_VARIABLE} is a number of GB, not {stated!r}") from None
    return int(limit * 1e9)


def _make_room(folder: Path, source: Path, need: int, limit: int) -> None:
    """Remove data sets, the longest unused first, until `need` bytes fit.

    Raises InputError where they do not, or where others in use take the room.
    """
    others = [path for path in folder.parent.iterdir() if path.is_dir() and path != folder]
    sizes = {path: _bytes_in(path) for path in others}
    used = sum(sizes.values())
    for path in sorted(others, key=_last_use):
        if used + need > limit and _remove(path):
            used -= sizes[path]
    if used + need > limit:
        raise InputError(
            f"there is no room for {source}, {need / 1e9:.3g} GB: the cache of packed images takes"
            f" {limit / 1e9:g} GB, of which {used / 1e9:.3g} GB are in use",
            f"Set {LIMIT_VARIABLE} higher, or pack it into a folder of your own: `simsiam-zoo"
            " pack`.",
        )


def _bytes_in(folder: Path) -> int:
    """Of its files; those that another process takes away meanwhile are none."""
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(at, name)).st_size
    return total


def _last_use(folder: Path) -> float:
    for path in (folder / MANIFEST, folder):
        with suppress(FileNotFoundError):
            return path.stat().st_mtime
    return 0.0


def _pin(folder: Path) -> None:
    """Mark it as used now, and as in use until this process ends. Called under its lock."""
    os.utime(folder / MANIFEST)
    if folder.name not in _pinned:
        descriptor = os.open(folder / MANIFEST, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        _pinned[folder.name] = descriptor


def _remove(folder: Path) -> bool:
    """Remove a folder of the cache, unless it is in use."""
    try:
        with FileLock(folder.with_name(f"{folder.name.partition('.')[0]}.lock"), timeout=0):
            if (folder / MANIFEST).exists():
                with (folder / MANIFEST).open("rb") as manifest:
                    fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
            else:
                shutil.rmtree(folder)
    except FileNotFoundError:  # somebody else was quicker
        return True
    except (Timeout, BlockingIOError):
        return False
    return True
