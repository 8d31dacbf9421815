"""Archives of images: unpacked into a folder for as long as it takes to pack them.

An archive is untrusted input: only regular files are taken, under names that stay inside the
folder, and no more bytes than there is room for.
"""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from simsiam_zoo.data.manifest import TEST, TRAIN
from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.runtime.folders import unwritable

ENDINGS = (".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
"""Of archives that are unpacked. A plain `.tar` is a shard, and is read as one."""

_AFTER = 1 << 20  # bytes behind the last member of a tar, which are read for their checksum

_Member = tuple[str, int, IO[bytes] | None]  # name, bytes, content


def is_archive(path: Path) -> bool:
    """Whether it is a file with the name of an archive."""
    return path.name.lower().endswith(ENDINGS) and path.is_file()


@contextmanager
def unpacked(source: Path, into: Path, room: Callable[[], int]) -> Iterator[Path]:
    """The folder of a source: of an archive what it holds, in `into`, removed at the end.

    A folder that is alone in an archive is what is given. Raises DataError where the archive is
    damaged or holds a name that leads out of it; InputError where it holds more bytes than there is
    `room` for in the folder, once that is made, or the folder cannot be written.
    """
    if not is_archive(source):
        yield source
        return
    shutil.rmtree(into, ignore_errors=True)
    try:
        into.mkdir(parents=True)
    except OSError as error:
        raise unwritable(into, error) from None
    try:
        _unpack(source, into, room())
        yield _inner(into)
    except InputError as error:
        what, hint = (
            text and text.replace(str(into), str(source)) for text in (error.what, error.hint)
        )
        error = InputError(what or "", hint)
        raise (error if str(source) in error.what else error.at(str(source))) from None
    finally:
        shutil.rmtree(into, ignore_errors=True)


def _unpack(source: Path, into: Path, room: int) -> None:
    try:
        for name, size, content in _members(source):
            parts = PurePosixPath(name.replace("\\", "/")).parts
            if name.startswith("/") or ".." in parts or (parts and parts[0][1:] == ":"):
                raise DataError(f"{source} holds the name {name!r}, which leads out of it")
            if content is None or any(p.startswith(".") or p == "__MACOSX" for p in parts):
                continue
            room -= size
            if room < 0:
                raise InputError(
                    "it holds more bytes than there is room for",
                    "Unpack it where there is room, and name the folder.",
                )
            path = into.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                shutil.copyfileobj(content, file)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise _damaged(source, error) from None
    except (RuntimeError, NotImplementedError) as error:  # zipfile: encrypted, another compression
        raise InputError(str(error), "Unpack it yourself, and name the folder.") from None
    except (NotADirectoryError, IsADirectoryError, FileExistsError):
        raise DataError(f"{source} holds a file and a folder of one name") from None
    except OSError as error:
        if error.errno is None:  # gzip and bz2 say so that what they read is damaged
            raise _damaged(source, error) from None
        if error.filename == str(source):
            reason = f"it cannot be read: {error.strerror}"
            raise InputError(reason, "Give yourself the right to read it.") from None
        raise unwritable(into, error) from None


def _damaged(source: Path, error: Exception) -> DataError:
    reason = str(error).partition("\n")[0].rstrip(":")  # tarfile goes on with a line a format
    return DataError(f"{source} is damaged: {reason}", "Download it again.")


def _members(source: Path) -> Iterator[_Member]:
    """The members in order; no content where one is no regular file."""
    if source.name.lower().endswith(".zip"):
        with zipfile.ZipFile(source) as archive:
            for info in archive.infolist():
                if info.is_dir() or (info.external_attr >> 28) not in (0, 8):  # a link, a device
                    continue
                with archive.open(info) as content:
                    yield info.filename, info.file_size, content
        return
    with tarfile.open(source, "r:*") as tar:
        for member in tar:
            regular = member.isfile() and not member.issparse()
            yield member.name, member.size, tar.extractfile(member) if regular else None
        if tar.fileobj is not None:
            tar.fileobj.read(_AFTER)  # else a checksum at the end is never compared


def _inner(folder: Path) -> Path:
    """The folder that is alone in `folder`, however deep, but for one that names a split."""
    while True:
        inside = list(folder.iterdir())
        alone = len(inside) == 1 and inside[0].is_dir()
        if not alone or inside[0].name.lower() in TRAIN + TEST:
            return folder
        folder = inside[0]
