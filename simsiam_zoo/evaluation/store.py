"""Features on disk: written once, mapped into memory by every protocol that wants them.

    FOLDER/<key>/x.f32        the features, float32, row after row in the order of ids
    FOLDER/<key>/labels.i64   their labels
    FOLDER/<key>/meta.json    what they are features of, their shape, the ids that have none, and
                              a digest of each file

The key is a hash of what they are features of. A folder is filled under another name and renamed
when it is whole; one whose digests do not fit any more is made again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.features import Features
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.folders import atomic_write_text, sync_folder

FORMAT = 2

Rows = Iterable[tuple[NDArray[np.int64], Tensor, Tensor]]
"""(ids [n], features [n, D], labels [n]) of one batch after another, the ids of each growing."""


@dataclass(frozen=True)
class Entry:
    """The place of some features in a folder of features.

    Args:
        folder: holds all entries.
        facts: what they are features of, as plain values; all of it decides the key.
    """

    folder: Path
    facts: dict[str, Any]

    @property
    def key(self) -> str:
        """16 hex digits."""
        text = json.dumps({"format": FORMAT, **self.facts}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def path(self) -> Path:
        """The entry's own folder."""
        return self.folder / self.key

    def read(self) -> Features | None:
        """The features, mapped into memory; None where they are not there, or damaged."""
        try:
            meta = json.loads((self.path / "meta.json").read_text("utf-8"))
            rows, dim, digests = int(meta["rows"]), int(meta["dim"]), dict(meta["sha256"])
            if rows + len(meta["missing"]) != int(meta["samples"]):
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        sizes = {"x.f32": 4 * rows * dim, "labels.i64": 8 * rows}
        for name, size in sizes.items():
            file = self.path / name
            if not file.is_file() or file.stat().st_size != size or not rows:
                return None
            if _sha256(file) != digests.get(name):
                return None
        return self.mapped()

    def mapped(self) -> Features:
        """The features of an entry that is known to be whole, mapped into memory."""
        meta = json.loads((self.path / "meta.json").read_text("utf-8"))
        file = self.path / "x.f32"
        x = torch.from_file(str(file), False, meta["rows"] * meta["dim"], dtype=torch.float32)
        labels = torch.from_numpy(np.fromfile(self.path / "labels.i64", np.int64))
        there = np.ones(meta["samples"], np.bool_)
        there[meta["missing"]] = False
        ids = torch.from_numpy(np.flatnonzero(there))
        return Features(x.view(meta["rows"], meta["dim"]), labels, ids, file)

    def make(self, samples: int, dim: int, rows: Rows) -> Features:
        """Write the features. Every rank calls it, with its own share of the rows.

        Args:
            samples: ids are below it; an id that no rank gives is left out.
            dim: width D.
            rows: this rank's.

        Raises:
            InputError: the folder cannot be written, or is another one for another rank.
            PeerError: another rank failed.
        """
        beside = Path(distributed.from_main(lambda: self._begin(samples, dim)))
        try:
            written = distributed.together(lambda: self._fill(beside, dim, rows))
            labels = np.full(samples, -1, np.int64)
            there = np.zeros(samples, np.bool_)
            for ids, found in distributed.collect(written):
                labels[ids], there[ids] = found, True
            distributed.from_main(lambda: self._finish(beside, dim, labels, there))
        finally:
            if distributed.rank() == 0:
                shutil.rmtree(beside, ignore_errors=True)
        return self.mapped()

    def _begin(self, samples: int, dim: int) -> str:
        beside = self.folder / f".{self.key}.{secrets.token_hex(4)}.tmp"
        with _writing(self.folder):
            beside.mkdir(parents=True)
            with (beside / "x.f32").open("wb") as file:
                file.truncate(4 * samples * dim)
        return str(beside)

    def _fill(
        self, beside: Path, dim: int, rows: Rows
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Write this rank's rows, each at the place of its id; their ids and labels."""
        if not (beside / "x.f32").is_file():
            raise InputError(
                f"rank {distributed.rank()} does not see {beside.parent} as rank 0 does",
                "Features need a folder that all processes share.",
            )
        all_ids, all_labels = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        with _writing(self.folder), (beside / "x.f32").open("r+b") as file:
            for ids, x, labels in rows:
                _write_rows(file.fileno(), ids, x.numpy().astype(np.float32, order="C"), dim)
                all_ids.append(ids)
                all_labels.append(labels.numpy())
            os.fsync(file.fileno())
        return np.concatenate(all_ids), np.concatenate(all_labels)

    def _finish(
        self, beside: Path, dim: int, labels: NDArray[np.int64], there: NDArray[np.bool_]
    ) -> None:
        if not there.any():
            raise InputError("there is no image to take features of")
        with _writing(self.folder):
            if not there.all():
                _close_gaps(beside / "x.f32", dim, np.flatnonzero(there))
            labels[there].tofile(beside / "labels.i64")
            meta = {
                "format": FORMAT,
                "facts": self.facts,
                "samples": len(there),
                "missing": np.flatnonzero(~there).tolist(),
                "rows": int(there.sum()),
                "dim": dim,
                "sha256": {name: _sha256(beside / name) for name in ("x.f32", "labels.i64")},
            }
            atomic_write_text(beside / "meta.json", json.dumps(meta, indent=2) + "\n")
            shutil.rmtree(self.path, ignore_errors=True)  # damaged, or it would have been used
            beside.rename(self.path)
            sync_folder(self.folder)


def cached(
    entry: Entry,
    samples: int,
    dim: int,
    rows: Callable[[], Rows],
    say: Callable[[str], None],
    *,
    whole: bool = False,
) -> Features:
    """The features of `entry`, from disk where they are good, else taken now and kept there.

    Every rank calls it. `samples`, `dim` and `rows` as for `Entry.make`; `say` takes one line of
    text. Where `whole`, features that some id has none of are not good.
    """
    if distributed.from_main(lambda: usable(entry, samples if whole else 0, say)):
        return distributed.together(entry.mapped)
    return entry.make(samples, dim, rows())


def usable(entry: Entry, fewest: int, say: Callable[[str], None] = lambda text: None) -> bool:
    """Whether so many features are there, undamaged; what is damaged is said."""
    found = entry.read()
    if found is not None:
        return len(found.labels) >= fewest
    if entry.path.exists():
        say(f"the features in {entry.path} are damaged; they are taken again")
    return False


def _write_rows(file: int, ids: NDArray[np.int64], x: NDArray[np.float32], dim: int) -> None:
    if x.shape != (len(ids), dim):
        raise AssertionError(f"{len(ids)} images gave features {x.shape}, not of width {dim}")
    breaks = np.flatnonzero(np.diff(ids) != 1) + 1
    starts = [0, *breaks.tolist(), len(ids)]
    for begin, end in itertools.pairwise(starts):
        if end > begin:
            data = memoryview(x[begin:end].tobytes())
            at = 4 * dim * int(ids[begin])
            while data:  # a write may be cut short
                done = os.pwrite(file, data, at)
                data, at = data[done:], at + done


def _close_gaps(path: Path, dim: int, ids: NDArray[np.int64]) -> None:
    """Leave only the rows `ids`, in place: each moves to the front, so none is lost."""
    x = np.memmap(path, np.float32, "r+").reshape(-1, dim)
    step = max(1, 2**24 // (4 * dim))
    for start in range(0, len(ids), step):
        some = ids[start : start + step]
        x[start : start + len(some)] = x[some]
    del x
    os.truncate(path, 4 * dim * len(ids))


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """What a full disk does, said as a user's error."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"features cannot be written to {folder}: {error.strerror or error}",
            "They take 4 bytes for each image and channel.",
        ) from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
