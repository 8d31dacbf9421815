"""Features on disk: taken once, read by every protocol that wants them.

    FOLDER/<key>/x.f32        the features, float32, row after row in the order of ids
    FOLDER/<key>/labels.i64   their labels
    FOLDER/<key>/meta.json    what they are features of, their shape, the ids that have none, and
                              a digest of each file

The key is a hash of what they are features of. Features are written to FOLDER/.<key>.part, where
state.u8 says which rows are there: a pass that was killed goes on with the others. The folder is
renamed when it is whole; one whose digests do not fit any more is made again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.features import Features
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.folders import atomic_write_text, sync_folder

STORE_FORMAT = 3
FLUSH_SECONDS = 10.0
"""How much work a kill may cost: so often what was written is made durable and noted."""

_UNKNOWN, _THERE, _LEFT_OUT = 0, 1, 2

Rows = Iterable[tuple[NDArray[np.int64], Sequence[Tensor], Tensor]]
"""One batch after another: places [n], growing; features [n, D] by each network; labels [n]."""


@dataclass(frozen=True)
class CachedFeatures:
    """The place of some features in a folder of features.

    Args:
        folder: holds all of them.
        facts: what they are features of, as plain values; all of it decides the key.
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

    @property
    def part(self) -> Path:
        """Where they are while they are taken."""
        return self.folder / f".{self.key}.part"

    def usable(self, fewest: int = 0, say: Callable[[str], None] = lambda text: None) -> bool:
        """Whether so many features are there, undamaged; what is damaged is said."""
        try:
            meta = json.loads((self.path / "meta.json").read_text("utf-8"))
            rows, dim, digests = int(meta["rows"]), int(meta["dim"]), dict(meta["sha256"])
            sizes = {"x.f32": 4 * rows * dim, "labels.i64": 8 * rows}
            whole = rows > 0 and rows + len(meta["missing"]) == int(meta["samples"])
            for name, size in sizes.items():
                file = self.path / name
                whole = whole and file.stat().st_size == size and _sha256(file) == digests[name]
        except (OSError, ValueError, KeyError, TypeError):
            whole = False
        if whole:
            return rows >= fewest
        if self.path.exists():
            say(f"the features in {self.path} are damaged: they are taken again")
        return False

    def read(self) -> Features:
        """The features, mapped into memory, of an entry that is known to be usable."""
        meta = json.loads((self.path / "meta.json").read_text("utf-8"))
        file = self.path / "x.f32"
        x = torch.from_file(str(file), False, meta["rows"] * meta["dim"], dtype=torch.float32)
        labels = torch.from_numpy(np.fromfile(self.path / "labels.i64", np.int64))
        there = np.ones(meta["samples"], np.bool_)
        there[meta["missing"]] = False
        ids = torch.from_numpy(np.flatnonzero(there))
        return Features(x.view(meta["rows"], meta["dim"]), labels, ids, file)

    def remove(self) -> None:
        """Delete the features; a folder that is empty then too."""
        for path in (self.path, self.part):
            shutil.rmtree(path, ignore_errors=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def fill(
    entries: Sequence[CachedFeatures],
    samples: int,
    widths: Sequence[int],
    batch: int,
    rows: Callable[[list[int]], Rows],
    *,
    whole: bool = False,
    say: Callable[[str], None] = lambda text: None,
    durable: bool = True,
) -> None:
    """Write features of the same images by several networks, in one pass. Every rank calls it.

    Places that are there from a pass that was cut short are not taken again.

    Args:
        entries: one for each network.
        samples: places are below it.
        widths: D of each network.
        batch: places are taken in batches of so many, the last one maybe smaller.
        rows: gives this rank's share: the batches of the numbers that it is given.
        whole: a place that an earlier pass left out is taken again.
        say: takes one line of text.
        durable: whether a loss of power may cost no more than `FLUSH_SECONDS` of work.

    Raises:
        InputError: the folder cannot be written, or is another one for another rank, or there is
            no image at all.
        PeerError: another rank failed.
    """
    with ExitStack() as held:
        fewest = samples if whole else 0

        def begin() -> tuple[list[int], list[int]]:
            """Which entries are still to be made, and which batches are left."""
            with _writing(entries[0].folder):
                held.enter_context(_locked(entries, say))
                left = [n for n, entry in enumerate(entries) if not entry.usable(fewest)]
                parts = [_Part(entries[n], samples, widths[n], durable) for n in left]
                todo = {number for part in parts for number in part.begin(batch, whole)}
            return left, sorted(todo)

        left, todo = distributed.from_main(begin)
        if not left:
            return
        parts = [_Part(entries[n], samples, widths[n], durable) for n in left]

        def write() -> None:
            share = todo[distributed.rank() :: distributed.world_size()]
            with ExitStack() as opened:
                for part in parts:
                    opened.enter_context(part)
                for places, features, labels in rows(share):
                    for n, part in zip(left, parts, strict=True):
                        part.write(places, features[n], labels, batch)

        distributed.together(write)
        for part in parts:
            distributed.from_main(part.finish)


class _Part:
    """Features on their way, in files that every rank writes its own rows of."""

    def __init__(self, entry: CachedFeatures, samples: int, width: int, durable: bool) -> None:
        self.entry, self.samples, self.width = entry, samples, width
        self.durable = durable
        self.folder = entry.part
        self._sizes = {"x.f32": 4 * samples * width, "labels.i64": 8 * samples, "state.u8": samples}
        self._handles: dict[str, int] = {}
        self._written: list[tuple[int, bytes]] = []  # place and states of what is not noted yet
        self._noted = time.monotonic()

    def begin(self, batch: int, whole: bool) -> list[int]:
        """Make the files unless they are there; the numbers of the batches that are left."""
        files = {self.folder / name: size for name, size in self._sizes.items()}
        if not all(file.is_file() and file.stat().st_size == size for file, size in files.items()):
            for file, size in files.items():
                with file.open("wb") as opened:
                    opened.truncate(size)
        state = np.fromfile(self.folder / "state.u8", np.uint8)
        open_ = (state != _THERE) & (whole | (state != _LEFT_OUT))
        left: list[int] = np.unique(np.flatnonzero(open_) // batch).tolist()
        return left

    def __enter__(self) -> Self:
        if not (self.folder / "state.u8").is_file():
            raise InputError(
                f"rank {distributed.rank()} does not see {self.entry.folder} as rank 0 does",
                "Features need a folder that all processes share.",
            )
        with _writing(self.entry.folder):
            self._handles = {n: os.open(self.folder / n, os.O_RDWR) for n in self._sizes}
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._note()
        finally:
            for handle in self._handles.values():
                os.close(handle)

    def write(self, places: NDArray[np.int64], x: Tensor, labels: Tensor, batch: int) -> None:
        """Write a batch's rows; what is missing of the batch is left out."""
        if x.shape != (len(places), self.width):
            raise AssertionError(
                f"{len(places)} images gave features {tuple(x.shape)}, not of width {self.width}"
            )
        rows = x.numpy().astype(np.float32, order="C", copy=False)
        breaks = [0, *(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), len(places)]
        first = int(places[0]) // batch * batch
        states = np.full(min(batch, self.samples - first), _LEFT_OUT, np.uint8)
        states[places - first] = _THERE
        with _writing(self.entry.folder):
            for begin, end in itertools.pairwise(breaks):
                at = int(places[begin])
                _pwrite(self._handles["x.f32"], rows[begin:end].tobytes(), 4 * self.width * at)
                _pwrite(self._handles["labels.i64"], labels[begin:end].numpy().tobytes(), 8 * at)
        self._written.append((first, states.tobytes()))
        if time.monotonic() - self._noted >= FLUSH_SECONDS:
            self._note()

    def _note(self) -> None:
        """Make what was written durable, and only then say that it is there."""
        with _writing(self.entry.folder):
            for name in ("x.f32", "labels.i64"):
                if self.durable:
                    os.fsync(self._handles[name])
            for place, states in self._written:
                _pwrite(self._handles["state.u8"], states, place)
        self._written.clear()
        self._noted = time.monotonic()

    def finish(self) -> None:
        """Close the gaps, write what it is, and give the folder its name."""
        there = np.fromfile(self.folder / "state.u8", np.uint8) == _THERE
        if not there.any():
            raise InputError("there is no image to take features of")
        with _writing(self.entry.folder):
            if not there.all():
                (self.folder / "state.u8").unlink()  # rows move: none is at its place any more
                _close_gaps(self.folder / "x.f32", self.width, np.flatnonzero(there))
                labels = np.fromfile(self.folder / "labels.i64", np.int64)
                labels[there].tofile(self.folder / "labels.i64")
            meta = {
                "format": STORE_FORMAT,
                "facts": self.entry.facts,
                "samples": len(there),
                "missing": np.flatnonzero(~there).tolist(),
                "rows": int(there.sum()),
                "dim": self.width,
                "sha256": {name: _sha256(self.folder / name) for name in ("x.f32", "labels.i64")},
            }
            text = json.dumps(meta, indent=2) + "\n"
            if self.durable:
                atomic_write_text(self.folder / "meta.json", text)
            else:
                (self.folder / "meta.json").write_text(text, "utf-8")
            for name in ("state.u8", ".lock"):
                (self.folder / name).unlink(missing_ok=True)
            shutil.rmtree(self.entry.path, ignore_errors=True)  # damaged, or it would be used
            self.folder.rename(self.entry.path)
            if self.durable:
                sync_folder(self.entry.folder)


@contextmanager
def _locked(entries: Sequence[CachedFeatures], say: Callable[[str], None]) -> Iterator[None]:
    """Hold the parts, in the order of their keys, so that one process at a time takes them."""
    with ExitStack() as held:
        for entry in sorted(entries, key=lambda each: each.key):
            while True:
                entry.part.mkdir(parents=True, exist_ok=True)
                lock = FileLock(entry.part / ".lock")
                try:
                    lock.acquire(timeout=0.1)
                except Timeout:
                    say(f"another process takes the features {entry.key}: waiting for it")
                    lock.acquire()
                if (entry.part / ".lock").exists():  # else it was finished meanwhile
                    held.callback(lock.release)
                    break
                lock.release()
        try:
            yield
        finally:
            for entry in entries:
                if not (entry.part / "state.u8").exists():  # nothing was begun, or it is finished
                    shutil.rmtree(entry.part, ignore_errors=True)


def _pwrite(handle: int, content: bytes, at: int) -> None:
    data = memoryview(content)
    while data:  # a write may be cut short
        done = os.pwrite(handle, data, at)
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
