"""Writing shards: plain WebDataset tars, an index beside each, and a manifest."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from simsiam_zoo.data.decode import Pixels, decode_any
from simsiam_zoo.data.index import UNLABELLED
from simsiam_zoo.data.manifest import ShardInfo, SplitInfo, index_path, write_manifest
from simsiam_zoo.data.scan import scan
from simsiam_zoo.data.stated import sha256
from simsiam_zoo.runtime.folders import atomic_write

JPEG_QUALITY = 95
"""Of images that were resized; Pillow's usual chroma subsampling (4:2:0)."""


def stored_form(data: bytes, resize_short: int | None = None) -> tuple[str, bytes]:
    """Decode an image to check it, and give what is to be stored.

    Args:
        data: a JPEG, PNG or WebP.
        resize_short: an image whose short side is longer is shrunk to it (bicubic, antialiased):
            a PNG stays one, others become JPEG. Any other image keeps its bytes.

    Returns:
        ("jpg" | "png" | "webp", the bytes): what the bytes are, whatever the file was called.

    Raises:
        DataError: it is damaged, too large, or of another format.
    """
    pixels = decode_any(data)
    form = "png" if data[:1] == b"\x89" else "webp" if data[:4] == b"RIFF" else "jpg"
    if resize_short is None or min(pixels.shape[:2]) <= resize_short:
        return form, data
    file = io.BytesIO()
    if form == "png":
        _shrink(pixels, resize_short).save(file, "PNG")
        return form, file.getvalue()
    _shrink(pixels, resize_short).save(file, "JPEG", quality=JPEG_QUALITY)
    return "jpg", file.getvalue()


def _shrink(pixels: Pixels, short: int) -> Image.Image:
    height, width = pixels.shape[:2]
    scale = short / min(height, width)
    size = max(short, round(width * scale)), max(short, round(height * scale))
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class PackedSample:
    """One sample to be written: its key, its encoded image, and -1 or its label."""

    key: str
    image: bytes
    format: str  # "jpg", "png" or "webp"
    label: int = UNLABELLED


def pack_split(
    folder: Path, split: str, samples: Iterable[PackedSample], shard_size: int
) -> tuple[ShardInfo, ...]:
    """Write `<split>-%06d.tar` with `shard_size` samples each, and their indexes.

    Equal samples give equal bytes. A shard appears under its name only when it is whole.
    """
    remaining = iter(samples)
    shards: list[ShardInfo] = []
    while chunk := list(itertools.islice(remaining, shard_size)):
        shards.append(write_shard(folder / f"{split}-{len(shards):06d}.tar", chunk))
    return tuple(shards)


def pack_dataset(
    folder: Path,
    splits: Mapping[str, Iterable[PackedSample]],
    classes: tuple[str, ...] | None,
    shard_size: int = 1000,
) -> None:
    """Write every split of a data set into an existing folder; the manifest comes last."""
    infos = {
        name: SplitInfo(pack_split(folder, name, samples, shard_size), classes)
        for name, samples in splits.items()
    }
    write_manifest(folder, infos)


def write_shard(path: Path, samples: Iterable[PackedSample]) -> ShardInfo:
    """Write one shard and its index, with the images' checksums; samples are taken as they come.

    The tar appears under its name only when it is whole, and its index after it.
    """
    from webdataset import TarWriter  # here: a reader of shards need not wait for its import

    with atomic_write(path) as file, TarWriter(file, user="", group="", mtime=0) as tar:
        for sample in samples:
            members = {"__key__": sample.key, sample.format: sample.image}
            if sample.label != UNLABELLED:
                members["cls"] = str(sample.label).encode()
            tar.write(members)
    index = scan(path, checksums=True)  # of what was written, not of what was meant
    with atomic_write(index_path(path)) as file:
        index.save(file)
    return ShardInfo(path.name, len(index), path.stat().st_size, sha256(path))
