"""Shards that nobody has counted: drawn at random, again and again.

webdataset draws the shards and shuffles the samples. Its openers, which run shells, and its
decoders, which unpickle, have no part in it: members come from `tar.members`, and what makes a
sample of them is `scan.sample_of`, as where shards are indexed.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.data.index import UNLABELLED, Findings, printable
from simsiam_zoo.data.order import SampleOrder, derive_key
from simsiam_zoo.data.remote.transfer import read_on
from simsiam_zoo.data.remote.urls import check_url, expand, is_remote, redacted
from simsiam_zoo.data.scan import describe_findings, is_image, is_litter, key_of, sample_of
from simsiam_zoo.data.shards import Sample, ShardSet
from simsiam_zoo.data.sources import locate_shards
from simsiam_zoo.data.tar import TAR_BLOCK, members
from simsiam_zoo.errors import DataError, InputError

MAX_MEMBER_BYTES = 1 << 26
"""Largest member that is taken into memory: 64 MiB."""
SHUFFLED, SHUFFLED_BYTES = 512, 1 << 27
"""Images that wait to be drawn from, and most bytes of them."""

STREAM_NOTE = (
    "reading as a stream: an epoch is data.steps_per_epoch steps, in which an image may come twice"
    " or never; the order depends on workers and ranks; a run that is resumed sees other images"
    " than one that was not; nothing is evaluated"
)
"""What is said once, before the first step."""


class StreamedSample(NamedTuple):
    """One sample: its shard and key as errors call it, and the encoded image."""

    name: str
    image: bytes


def read_stream(source: str, findings: Findings | None = None) -> Iterator[StreamedSample]:
    """The samples of one shard that have an image, from its front to its end.

    `source` is a path or an allowed URL; `findings` is told what is passed over. Raises DataError
    where it cannot be had or is damaged, InputError where it is compressed.
    """
    findings, where = findings or Findings(), shown_source(source)
    with closing(_blocks(source)) as blocks:
        for key, parts in _groups(_Forward(blocks), where, findings):
            sample = sample_of(key, parts, bytes, findings.pass_over)
            if sample is None:
                findings.without_image += 1
            else:
                yield StreamedSample(f"{where}: {printable(key)}", sample.image)


def stream_samples(sources: Sequence[str], seed: int) -> Iterator[StreamedSample]:
    """Samples without end: shards drawn with replacement, images shuffled in a bounded buffer."""
    from webdataset import ResampledShards

    drawn = ResampledShards([*sources], worker_seed=lambda: seed, deterministic=True)
    urls = (shard["url"] for shard in drawn)
    return _shuffled(_read_all(urls, most_in_vain=8 + 2 * len(sources)), seed)


def _read_all(sources: Iterable[str], most_in_vain: int) -> Iterator[StreamedSample]:
    """The samples of shards, one after the other; what is passed over is said once.

    Raises DataError where more than `most_in_vain` in a row have no image.
    """
    findings, told, in_vain = Findings(), False, 0
    for source in sources:
        in_vain += 1
        for sample in read_stream(source, findings):
            in_vain = 0
            yield sample
        where = shown_source(source)
        if not told and (lines := describe_findings([findings])):
            told = True
            text = "".join(f"warning: {where}: {line}\n" for line in lines)
            print(text, end="", file=sys.stderr)
        if in_vain > most_in_vain:
            raise DataError(f"no shard holds images; the last one was {where}")


def _groups(
    read_at: _Forward, where: str, findings: Findings
) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    """Each key, and the members that follow each other under it: by their endings, whole."""
    key, parts, held = b"", dict[bytes, bytes](), 0
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
        if pair[0] != key or held > MAX_MEMBER_BYTES:  # so much of one key begins a new sample
            if parts:
                yield key, parts
            key, parts, held = pair[0], {}, 0
        if pair[1] in parts:
            raise DataError(f"{where} is damaged: {printable(name)} is a duplicate file name")
        parts[pair[1]] = content
        held += max(size, MAX_MEMBER_BYTES >> 8)  # and so do very many small members
    if parts:
        yield key, parts


def _shuffled(samples: Iterable[StreamedSample], seed: int) -> Iterator[StreamedSample]:
    """webdataset's shuffle of endless samples; a buffer of too many bytes is emptied first."""
    from webdataset.filters import shuffle

    held, rng = 0, random.Random(seed)

    def until_full() -> Iterator[StreamedSample]:
        nonlocal held
        for sample in samples:
            held += len(sample.image)
            yield sample
            if held > SHUFFLED_BYTES:
                return

    while True:
        for sample in shuffle(SHUFFLED, rng=rng)(until_full()):
            held -= len(sample.image)
            yield sample


class _Forward:
    """A stream as `tar.members` reads it: each offset lies behind what was read before."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._ready, self._at = blocks, memoryview(b""), 0

    def __call__(self, size: int, offset: int) -> bytes:
        while self._at < offset and self._take(offset - self._at):
            pass
        parts = bytearray()
        while len(parts) < size and (block := self._take(size - len(parts))):
            parts += block
        return bytes(parts)

    def _take(self, size: int) -> memoryview:
        self._ready = self._ready or memoryview(next(self._blocks, b""))
        block, self._ready = self._ready[:size], self._ready[size:]
        self._at += len(block)
        return block


def _blocks(source: str) -> Generator[bytes]:
    if is_remote(source):
        yield from read_on(source)
        return
    try:
        with open(source, "rb") as file:
            while block := file.read(1 << 20):
                yield block
    except OSError as error:
        raise DataError(f"the shard {source} cannot be read: {error.strerror}") from None


def shown_source(source: str) -> str:
    """What errors call a shard."""
    return redacted(source) if is_remote(source) else os.fspath(source)


class StreamPlan(SampleOrder):
    """Steps, where samples cannot be counted: `steps` an epoch, of a global `batch` each.

    Its ids number the images that a run asks for. Raises InputError where no steps are given.
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

    `read` gives the next image of this process's own stream, whatever it is asked for. `sources`
    are paths, and URLs that `check_url` let in.
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

        Raises DataError where a shard cannot be had, is damaged, or none holds an image.
        """
        if self._stream is None:
            self._stream = stream_samples(self.sources, derive_key(self.seed, id))
        sample = next(self._stream)
        self._name = sample.name
        return Sample(sample.name.rpartition(": ")[2], memoryview(sample.image), UNLABELLED)


def open_stream_set(source: str) -> StreamSet:
    """The shards that a path, a pattern or a URL names. Raises InputError where there are none."""
    if not is_remote(source):
        return StreamSet(tuple(locate_shards(source)[0]))
    url = check_url(source.strip())
    if not url.endswith(".tar"):
        raise InputError(
            f"{redacted(url)}: a stream needs the shards themselves",
            "Spell them: .../train-{000000..000146}.tar.",
        )
    return StreamSet(tuple(expand(url)))
