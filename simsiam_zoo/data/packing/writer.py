"""What is packed, and writing it: plain WebDataset tars, an index beside each, and a manifest."""

from __future__ import annotations

import abc
import io
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from simsiam_zoo.data.bands import band_format, read_bands
from simsiam_zoo.data.decode import decode_any
from simsiam_zoo.data.index import UNLABELLED
from simsiam_zoo.data.manifest import ShardInfo, SplitInfo, index_path, write_manifest
from simsiam_zoo.data.scan import image_format, scan
from simsiam_zoo.data.stated import sha256
from simsiam_zoo.errors import InputError
from simsiam_zoo.runtime.folders import atomic_write

JPEG_QUALITY = 95
"""Of images that were resized; Pillow's usual chroma subsampling (4:2:0)."""


class OriginalSplit(abc.ABC):
    """The images of one split, 0 to n - 1, in an order that their names and contents decide.

    A split is sent to worker processes: what it opens, it opens when it is first read there.
    """

    labels: NDArray[np.int64]  # [n], -1 where there is none
    sizes: NDArray[np.int64] = np.empty(0, np.int64)  # [n] in bytes, where known without reading

    def __len__(self) -> int:
        return len(self.labels)

    def key(self, i: int) -> str:
        """The i-th image's key in the shards: unique in the split; ASCII without dot or slash."""
        return f"{i:08d}"

    @abc.abstractmethod
    def name(self, i: int) -> str:
        """What the source calls the i-th image; fit to be shown."""

    @abc.abstractmethod
    def read(self, i: int) -> bytes:
        """The i-th image, encoded. Raises DataError where it cannot be read."""


@dataclass(frozen=True)
class Original:
    """A data set to be packed. Its notes tell what was taken and what was not."""

    kind: str  # "cifar-10", "image folder", ...
    splits: Mapping[str, OriginalSplit]  # "train", "val" and others, as the shards will be called
    classes: tuple[str, ...] | None = None  # names of the labels 0, 1, ..., where known
    notes: tuple[str, ...] = ()


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels as a PNG, not deflated: its bytes do not depend on the zlib at hand."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=0)
    return file.getvalue()


def stored_form(data: bytes, resize_short: int | None = None) -> tuple[str, bytes]:
    """Decode an image to check it; give what is to be stored: its ending, jpg say, and the bytes.

    With `resize_short` an image whose short side is longer is shrunk to it (bicubic, antialiased):
    a PNG stays one, others become JPEG. Any other image keeps its bytes. Raises DataError where it
    is damaged, too large, or of another format; InputError where it is to be shrunk and is an array
    or a TIFF.
    """
    if form := band_format(data[:8]):
        read_bands(data)
        if resize_short is not None:
            raise InputError(
                f"--resize-short makes JPEGs, and these images are {form}", "Leave it out."
            )
        return form, data
    pixels, form = decode_any(data), image_format(data)
    height, width = pixels.shape[:2]
    if resize_short is None or min(height, width) <= resize_short:
        return form, data
    scale = resize_short / min(height, width)
    size = max(resize_short, round(width * scale)), max(resize_short, round(height * scale))
    small = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    if form == "png":
        small.save(file, "PNG")
        return form, file.getvalue()
    small.save(file, "JPEG", quality=JPEG_QUALITY)
    return "jpg", file.getvalue()


@dataclass(frozen=True)
class PackedSample:
    """One sample to be written: its key, its encoded image, and -1 or its label."""

    key: str
    image: bytes
    format: str  # "jpg", "png", "webp", "npy" or "tiff"
    label: int = UNLABELLED


def pack_dataset(
    folder: Path,
    splits: Mapping[str, Iterable[PackedSample]],
    classes: tuple[str, ...] | None,
    shard_size: int = 1000,
) -> None:
    """Write every split of a data set into an existing folder; the manifest comes last.

    Shards are `<split>-%06d.tar` of `shard_size` samples. Equal samples give equal bytes.
    """
    infos = {}
    for split, samples in splits.items():
        remaining, shards = iter(samples), list[ShardInfo]()
        while chunk := list(itertools.islice(remaining, shard_size)):
            shards.append(write_shard(folder / f"{split}-{len(shards):06d}.tar", chunk))
        infos[split] = SplitInfo(tuple(shards), classes)
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
    index.save(index_path(path))
    return ShardInfo(path.name, len(index), path.stat().st_size, sha256(path))
