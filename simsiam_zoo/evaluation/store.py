"""Features on disk: taken once, read by every protocol that wants them.

    FOLDER/<key>/x.f32        the features, float32, row after row in the order of ids
    FOLDER/<key>/images.npz   ids and labels of those images, [N] int64; the width of a row
    FOLDER/<key>/facts.json   what they are features of

The key is a hash of those facts. Features are written to a hidden folder beside it, which gets that
name when it is whole: what has the name can be used.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.protocol import Features
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.folders import atomic_write, atomic_write_text, sync_folder

STORE_FORMAT = 4
STALE_SECONDS = 24 * 3600.0
"""After which what a killed process left of the same features is deleted."""

Ids = NDArray[np.int64]
Rows = Iterable[tuple[Ids, Sequence[Tensor], Tensor]]
"""One batch after another: ids [n], growing; features [n, D] by each network; labels [n]."""


@dataclass(frozen=True)
class CachedFeatures:
    """The place of some features in a folder of features.

    `facts`: what they are features of, as plain values; all of it decides the key.
    """

    folder: Path
    facts: dict[str, Any]

    @property
    def key(self) -> str:
        """16 hex digits."""
        text = json.dumps({"format": STORE_FORMAT, **self.facts}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def path(self) -> Path:
        """The folder of these features."""
        return self.folder / self.key

    def read(self) -> Features | None:
        """The features, mapped into memory; None where they are not there, or damaged."""
        try:
            with np.load(self.path / "images.npz") as images:
                ids, labels = images["ids"], images["labels"]
                width = int(images["width"])
            x = np.memmap(self.path / "x.f32", np.float32, "c").reshape(len(ids), width)
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        return Features(torch.from_numpy(x), torch.from_numpy(labels), torch.from_numpy(ids))

    def remove(self) -> None:
        """Delete the features, unfinished ones too; and a folder that is empty then."""
        for path in (self.path, *self.folder.glob(f".{self.key}-*")):
            shutil.rmtree(path, ignore_errors=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def fill(entries: Sequence[CachedFeatures], ids: Ids, widths: Sequence[int], rows: Rows) -> None:
    """Write features of the same images by several networks, in one pass. Every rank calls it.

    Args:
        entries: one for each network, in one folder.
        ids: of the images, growing; those that `rows`, this rank's share, leaves out are left out.
        widths: D of each network.

    Raises InputError: the folder cannot be written, or ranks see different ones, or no image came.
    """
    parts = distributed.from_main(lambda: [_begin(entry) for entry in entries])
    try:
        shares = distributed.collect(distributed.together(lambda: _write(parts, ids, widths, rows)))
        there, labels = (np.concatenate(each) for each in zip(*shares, strict=True))
        order = np.argsort(there)

        def finish() -> None:
            for entry, part, width in zip(entries, parts, widths, strict=True):
                _finish(entry, part, ids, width, there[order], labels[order])

        distributed.from_main(finish)
    finally:
        if distributed.rank() == 0:
            for part in parts:
                shutil.rmtree(part, ignore_errors=True)


def _begin(entry: CachedFeatures) -> Path:
    """A folder to write the features in."""
    part = entry.folder / f".{entry.key}-{secrets.token_hex(4)}"
    with _writing(entry.folder):
        for old in entry.folder.glob(f".{entry.key}-*"):
            if time.time() - old.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
        part.mkdir(parents=True)
        (part / "x.f32").touch()
    return part


def _write(parts: list[Path], ids: Ids, widths: Sequence[int], rows: Rows) -> tuple[Ids, Ids]:
    """Write this rank's rows, each at the place of its id; the ids and labels that came."""
    # Filled in place: small arrays that stay, one for each batch, cut the memory of large ones that
    # were freed into pieces that no batch fits in, and a process grows to the size of all features.
    there, labels, count = np.empty(len(ids), np.int64), np.empty(len(ids), np.int64), 0
    with ExitStack() as opened:
        with _writing(parts[0].parent):  # r+b: a rank that does not see the folder is told so
            files = [opened.enter_context((part / "x.f32").open("r+b")) for part in parts]
        for came, features, truth in rows:
            places = np.searchsorted(ids, came)
            for file, width, x in zip(files, widths, features, strict=True):
                whole = np.zeros((places[-1] - places[0] + 1, width), np.float32)
                whole[places - places[0]] = x.numpy()
                with _writing(parts[0].parent):
                    file.seek(4 * width * int(places[0]))
                    file.write(whole.data)
            there[count : count + len(came)] = came
            labels[count : count + len(came)] = truth.numpy()
            count += len(came)
        with _writing(parts[0].parent):
            for file in files:
                file.flush()
                os.fsync(file.fileno())
    return there[:count], labels[:count]


def _finish(
    entry: CachedFeatures, part: Path, ids: Ids, width: int, there: Ids, labels: Ids
) -> None:
    """Close the gaps, write what the rows are of, and give the folder its name."""
    if not len(there):
        raise InputError("there is no image to take features of")
    with _writing(entry.folder):
        if len(there) < len(ids):
            _close_gaps(part / "x.f32", width, np.searchsorted(ids, there))
        with atomic_write(part / "images.npz") as file:
            np.savez(file, ids=there, labels=labels, width=np.int64(width))
        atomic_write_text(part / "facts.json", json.dumps(entry.facts, indent=2) + "\n")
        other = entry.read()  # of a process that took the same ones meanwhile, and reads them now
        if other is None or len(other.labels) < len(there):
            shutil.rmtree(entry.path, ignore_errors=True)
            part.rename(entry.path)
            sync_folder(entry.folder)


def _close_gaps(path: Path, width: int, places: Ids) -> None:
    """Leave only the rows at `places`, in place: each moves to the front, so none is lost."""
    x = np.memmap(path, np.float32, "r+").reshape(-1, width)
    step = max(1, 2**24 // (4 * width))
    for start in range(0, len(places), step):
        some = places[start : start + step]
        x[start : start + len(some)] = x[some]
    del x
    with path.open("r+b") as file:
        file.truncate(4 * width * len(places))
        os.fsync(file.fileno())


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """What a full disk does, said as a user's error."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"features cannot be written to {folder}: {error.strerror or error}",
            "They take 4 bytes for each image and channel, in a folder that all processes share.",
        ) from None
