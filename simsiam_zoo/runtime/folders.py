"""Where files go, and how to put one there whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from simsiam_zoo.errors import InputError
from simsiam_zoo.runtime.machine import restarts

_CACHE_HINT = (
    "Set SIMSIAM_ZOO_CACHE to a folder that can be written, on a local disk with room left."
)


ASKED = 0.05
"""Seconds after which a lock is held: to ask whether it is, `is_held` has it for a moment."""


def cache_dir() -> Path:
    """The user's cache folder (or `SIMSIAM_ZOO_CACHE`), made; InputError: it cannot be."""
    path = _cache_path()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable_cache(f"the cache folder {path} cannot be made", error) from None
    return path


def _cache_path() -> Path:
    import platformdirs  # not at the top: the light commands import this module

    if override := os.environ.get("SIMSIAM_ZOO_CACHE"):
        return expand_user(override)
    # Containers often run with a user id that has neither HOME nor an entry in the passwd file.
    try:
        path = platformdirs.user_cache_path("simsiam-zoo")
    except RuntimeError:
        path = Path("~")  # as older versions leave it
    if not path.is_absolute():
        raise InputError("there is no home folder to keep a cache in", _CACHE_HINT)
    return path


def unwritable_cache(what: str, error: OSError) -> InputError:
    """What to raise where something of the cache cannot be written: `what`, and why."""
    return InputError(f"{what}: {error.strerror or error}", _CACHE_HINT)


def expand_user(path: Path | str) -> Path:
    """The path with `~` and `~name` replaced by the home folder; InputError: it is not known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        what = f"{path}: the home folder is not known"
        raise InputError(what, "Name it by its whole path.") from None


def new_run_folder(name: str) -> Path:
    """runs/NAME, or runs/NAME-2 and so on where that is taken; it is not made yet.

    Processes that torchrun started anew go on with the newest of them.
    """
    folder, number = Path("runs") / name, 1
    newest = None
    while folder.exists():
        newest, number = folder, number + 1
        folder = Path("runs") / f"{name}-{number}"
    return newest if newest and restarts() > 0 else folder


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make `folder` and those above it; on an error remove those that were made, if empty again."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.rmdir()
        raise


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Write a file beside `path`, fsync it, and rename it over `path`; on an error leave no trace.

    A reader sees the old content or the new, never a part; after a power cut too.
    """
    # Not by tempfile: its files are their owner's alone, whatever the umask says.
    beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def is_held(lock: Path) -> bool:
    """Whether some process holds a lock's file, and not only asks this as well."""
    if not lock.exists():
        return False
    from filelock import FileLock, Timeout  # not at the top: the light commands import this module

    try:
        with FileLock(lock).acquire(timeout=ASKED, poll_interval=ASKED / 10):
            return False
    except Timeout:
        return True
    except OSError:  # somebody else's folder, which can only be read
        return False


def run_title(folder: Path) -> str:
    """What a run is called: its folder's name; in a study `study/arm/seed`."""
    path = folder.resolve()
    job = path.parent
    if path.name == "run" and job.parent.parent.name == "jobs":
        return "/".join((job.parents[2].name, job.parent.name, job.name))
    return path.name


def check_out(path: Path, what: str = "", *endings: str) -> None:
    """Refuse `--out` with another ending, or in no folder, before any work is done: InputError."""
    if endings and path.suffix not in endings:
        raise InputError(f"--out {path}: {what} written as {' or '.join(endings)}")
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.parent}", "Make it first.")


def unwritable(path: Path, error: OSError) -> InputError:
    """What to raise where a file or folder that the user named, or one in the cache, cannot be
    written.
    """
    what = f"{path} cannot be written"
    with suppress(InputError):  # there is no cache
        if path.is_relative_to(_cache_path()):
            return unwritable_cache(what, error)
    return InputError(
        f"{what}: {error.strerror or error}",
        "Name another place: one where you may write, with room left.",
    )


def save_text(path: Path, text: str) -> None:
    """Write a file that the user asked for, whole or not at all; else InputError."""
    try:
        atomic_write_text(path, text)
    except OSError as error:
        raise unwritable(path, error) from None


def atomic_write_text(path: Path, text: str) -> None:
    """Write a text, UTF-8: a reader sees the old file or the new, never a part of it."""
    with atomic_write(path) as file:
        file.write(text.encode())


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(path: Path) -> None:
    """Make the folder's renames durable, where the system can."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
