"""Shards that nobody has counted: drawn at random, again and again, without an index.

Each is read from front to back, by the same readers as where shards are indexed: `tar.members`, and
`scan.sample_of` for what makes a sample. (webdataset's pipeline is not used: its URL openers run
shells, its decoders unpickle, and its tarfile takes other sizes than the header's.)
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.data.index import UNLABELLED, Findings, printable
from simsiam_zoo.data.order import SampleOrder, derive_key, keyed_hash
from simsiam_zoo.data.remote.transfer import RemoteFile
from simsiam_zoo.data.remote.urls import check_url, expand, is_remote, redacted
from simsiam_zoo.data.scan import (
    FoundSample,
    describe_findings,
    is_image,
    is_litter,
    key_of,
    sample_of,
)
from simsiam_zoo.data.shards import Sample, ShardSet
from simsiam_zoo.data.sources import locate_shards
from simsiam_zoo.data.tar import TAR_BLOCK, members
from simsiam_zoo.errors import DataError, InputError

MAX_MEMBER_BYTES = 1 << 26
"""Largest member that is taken into memory: 64 MiB."""

_HELD = 256
"""Members of one key that are held until its samples are told apart; more begin a new one."""


class StreamedSample(NamedTuple):
    """One sample: its shard and key as errors call it, and the encoded image."""

    name: str
    image: bytes


def read_stream(source: str, findings: Findings | None = None) -> Iterator[StreamedSample]:
    """The samples of one shard that have an image, from its front to its end.

    Args:
        source: a path or an allowed URL.
        findings: told what is passed over.

    Raises:
        DataError: it cannot be had or is damaged.
        InputError: it is compressed.
    """
    shown, findings = shown_source(source), findings or Findings()
    with closing(_open(source)) as raw:
        for sample in _samples(_Forward(raw), shown, findings):
            yield StreamedSample(f"{shown}: {printable(sample.key)}", sample.image)


class _Forward:
    """A stream as `tar.members` reads it: each offset lies behind what was read before."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._at = raw, 0

    def __call__(self, size: int, offset: int) -> bytes:
        while self._at < offset and self._take(min(offset - self._at, 1 << 20)):
            pass
        parts = bytearray()
        while len(parts) < size and (block := self._take(size - len(parts))):
            parts += block
        return bytes(parts)

    def _take(self, size: int) -> bytes:
        block = self._raw.read(size)
        self._at += len(block)
        return block


def _samples(read_at: _Forward, where: str, findings: Findings) -> Iterator[FoundSample[bytes]]:
    """The samples of members that come one after the other, by the rules of `scan.sample_of`."""
    key, parts, held = b"", dict[bytes, bytes](), 0

    def made() -> Iterator[FoundSample[bytes]]:
        if not parts:
            return
        sample = sample_of(key, list(parts.items()), lambda content: content, findings.pass_over)
        if sample is None:
            findings.without_image += 1
        else:
            yield sample

    for name, header, size, _ in members(read_at, where):
        if is_litter(name):
            continue
        problem = f"{where}: the member at offset {header} is refused: "
        if size > MAX_MEMBER_BYTES:
            raise DataError(f"{problem}{size} bytes are too many for one member of a stream")
        content = read_at(size, header + TAR_BLOCK)
        if len(content) < size:
            raise DataError(f"{problem}its content is cut off")
        if (pair := key_of(name)) is None:
            if is_image(name.lower(), partial(bytes, content)):
                findings.pass_over(printable(name))
            continue
        if pair[0] != key or len(parts) >= _HELD or held > MAX_MEMBER_BYTES:
            yield from made()
            key, parts, held = pair[0], {}, 0
        if pair[1] in parts:
            raise DataError(f"{problem}its name, {printable(name)}, was there before")
        parts[pair[1]], held = content, held + len(content)
    yield from made()


def _open(source: str) -> BinaryIO:
    if is_remote(source):
        return RemoteFile(source)  # type: ignore[return-value]
    try:
        return open(source, "rb")
    except OSError as error:
        raise DataError(f"the shard {source} cannot be read: {error.strerror}") from None


def shown_source(source: str) -> str:
    """What errors call a shard."""
    return redacted(source) if is_remote(source) else os.fspath(source)


SHUFFLED, SHUFFLED_BYTES = 512, 1 << 27
"""Images that wait to be drawn from, and most bytes of them."""

STREAM_NOTE = (
    "reading as a stream: an epoch is data.steps_per_epoch steps, in which an image may come twice"
    " or never; the order depends on workers and ranks; a run that is resumed sees other images"
    " than one that was not; nothing is evaluated"
)
"""What is said once, before the first step."""


class StreamPlan(SampleOrder):
    """Steps, where samples cannot be counted. Its ids number the images that a run asks for.

    Args:
        steps: per epoch.
        batch: global batch size, over all ranks.

    Raises:
        InputError: no steps are given.
    """

    def __init__(self, steps: int, batch: int) -> None:
        if steps < 1:
            raise InputError(
                "a stream has no length of its own, so data.steps_per_epoch must be given",
                "Say --set data.steps_per_epoch=N: N x training.batch_size images are an epoch.",
            )
        super().__init__([batch], seed=0, batch=batch)
        self.steps = steps

    def ids(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
        """Numbers [batch / world] that no other step, epoch or rank has."""
        share = self.share(world)
        first = (epoch * self.steps + step) * self.batch + rank * share
        return np.arange(first, first + share, dtype=np.int64)


class StreamSet(ShardSet):
    """Some shards, of which only the names are known: as a shard set it is empty.

    `read` gives the next image of this process's own stream, whatever it is asked for.

    Args:
        sources: paths, and URLs that `check_url` let in.
        seed: of the run.
    """

    def __init__(self, sources: tuple[str, ...], seed: int = 0) -> None:
        super().__init__(())
        self.sources, self.seed = sources, seed
        self._stream: Iterator[StreamedSample] | None = None
        self._name = ""

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_stream": None}

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over names, and of files on disk over sizes and times: all there is."""
        sha256 = hashlib.sha256()
        for source in self.sources:
            version = "?"
            if not is_remote(source):
                with suppress(OSError):  # whoever reads it will tell
                    status = os.stat(source)
                    version = f"{os.path.abspath(source)}\0{status.st_size}\0{status.st_mtime_ns}"
            line = f"{source.rpartition('/')[2]}\0{version}\n"
            sha256.update(line.encode("utf-8", "surrogateescape"))
        return sha256.hexdigest()

    def name(self, id: int) -> str:
        """`shard: key` of what was read last."""
        return self._name

    def read(self, id: int) -> Sample:
        """The next image. The first id that a process asks for, which is its own, seeds the stream.

        Raises:
            DataError: a shard cannot be had, is damaged, or none holds an image.
        """
        if self._stream is None:
            self._stream = stream_samples(self.sources, derive_key(self.seed, id))
        sample = next(self._stream)
        self._name = sample.name
        return Sample(sample.name.rpartition(": ")[2], memoryview(sample.image), UNLABELLED)


def stream_samples(sources: Sequence[str], seed: int) -> Iterator[StreamedSample]:
    """Samples without end: shards drawn with replacement, images shuffled in a bounded buffer.

    Raises:
        DataError: a shard cannot be had, is damaged, or none holds an image.
    """
    buffer: list[StreamedSample] = []
    held, drawn, wanted = 0, 0, 0
    for sample in _unshuffled(sources, derive_key(seed, 1)):
        buffer.append(sample)
        held += len(sample.image)
        # Given out from the first image on, one for every two that come, until the buffer is full.
        wanted = min(wanted + 1, SHUFFLED)
        while 2 * len(buffer) > wanted or held > SHUFFLED_BYTES:
            chosen = _draw(derive_key(seed, 2), drawn, len(buffer))
            buffer[chosen], buffer[-1] = buffer[-1], buffer[chosen]
            out = buffer.pop()
            held, drawn = held - len(out.image), drawn + 1
            yield out


def _unshuffled(sources: Sequence[str], key: int) -> Iterator[StreamedSample]:
    in_vain, told = 0, False
    for number in itertools.count():
        source = sources[_draw(key, number, len(sources))]
        found = False
        findings = Findings()
        for sample in read_stream(source, findings):
            found = True
            yield sample
        if not told and (lines := describe_findings([findings])):
            told = True
            text = "".join(f"warning: {shown_source(source)}: {line}\n" for line in lines)
            print(text, end="", file=sys.stderr)
        in_vain = 0 if found else in_vain + 1
        if in_vain > 8 + 2 * len(sources):
            raise DataError(f"no shard holds images; the last one was {shown_source(source)}")


def open_stream_set(source: str) -> StreamSet:
    """The shards that a path, a pattern or a URL names.

    Raises:
        InputError: there are none, or the URL is one of a folder, which nobody can list.
    """
    if not is_remote(source):
        return StreamSet(tuple(locate_shards(source)[0]))
    url = check_url(source.strip())
    if not url.endswith(".tar"):
        raise InputError(
            f"{redacted(url)}: a stream needs the shards themselves",
            "Spell them: .../train-{000000..000146}.tar.",
        )
    return StreamSet(tuple(expand(url)))


def _draw(key: int, number: int, among: int) -> int:
    hashed = keyed_hash(np.array([number], np.int64), key)[0]
    return int(hashed % np.uint64(among))
