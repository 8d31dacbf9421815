"""The loader against the paper's PIL pipeline, in CPU time of all processes, on images made here.

    python benchmarks/loader.py [ROUNDS]

The images are photograph-like JPEGs, 500 x 375, 4:2:0, 60 to 110 KB. Both sides give two views of
224 px from one worker process with one thread, which reads, decodes, augments and collates. Theirs
is torchvision's v1 transforms over an image folder, as the paper's code has it. CPU time is taken
between two batches of a run under way, of this process and the worker; ROUNDS (5) rounds of all
cases alternate. Speeds are medians; a ratio is the median of the rounds' ratios, since what else a
machine does comes and goes.

`crops only` is the worker's share where colour and blur are left to the device: it is compared with
the complete pipeline, which has no such choice. `decode` is plain full-quality decoding alone.

The rows `12 MP` have images of 4000 x 3000 instead. libjpeg takes 53 ms for one of 3.5 MB, and 37,
34 and 30 ms at a half, a quarter and an eighth of its scale, since entropy decoding stays: decoding
at a smaller scale could bring their views from 2.3 to about 3.3 x PIL.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import torch
from PIL import Image, ImageFilter
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from shared.images import jpegs, pack_images
from shared.rows import row
from simsiam_zoo.catalog import create_component
from simsiam_zoo.data.decode import decode
from simsiam_zoo.data.loader import TrainLoader, normalize_pixels
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.runtime.device import _device_name

IMAGES, BATCH, WARM, TIMED, SIZE = 64, 32, 4, 12, 224
LARGE, LARGE_BATCH = 8, 4  # images of 12 megapixels
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TICK = os.sysconf("SC_CLK_TCK")


class GaussianBlur:
    """The paper code's."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """Blur by a drawn radius."""
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


class TwoViews:
    """The same transform, twice."""

    def __init__(self, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.transform = transform

    def __call__(self, image: Image.Image) -> list[torch.Tensor]:
        """Both views."""
        return [self.transform(image), self.transform(image)]


def theirs(folder: Path, floats: bool, batch: int = BATCH) -> Iterator[object]:
    ends: list[object] = [transforms.PILToTensor()]
    if floats:
        ends = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    augmentation = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, scale=(0.2, 1.0)),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([GaussianBlur()], p=0.5),
            transforms.RandomHorizontalFlip(),
            *ends,
        ]
    )
    images = ImageFolder(str(folder), TwoViews(augmentation))
    order = list(range(len(images))) * 40
    return iter(DataLoader(images, batch, sampler=order, num_workers=1, prefetch_factor=4))


def ours(shards: ShardSet, floats: bool, complete: bool, batch: int = BATCH) -> Iterator[object]:
    strengths = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    chances = {"jitter_p": 0.8, "gray_p": 0.2, "blur_p": 0.5}
    if not complete:
        chances = dict.fromkeys(chances, 0.0)
    given = {"min_scale": 0.2, "flip_p": 0.5, **strengths, **chances}
    augmentation = create_component("augmentation", "simsiam", **given)
    plan = SampleOrder(shards.counts, seed=0, batch=batch)
    for made in TrainLoader(shards, plan, augmentation, SIZE, epochs=40, workers=1):
        yield [normalize_pixels(view, MEAN, STD) for view in made.views] if floats else made


def cpu_seconds() -> float:
    """CPU time so far of this process and its workers."""
    total = time.process_time()
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICK
    return total


def seconds_per_image(batches: Iterator[object], batch: int = BATCH) -> float:
    for _ in range(WARM):
        next(batches)
    start = cpu_seconds()
    for _ in range(TIMED):
        next(batches)
    return (cpu_seconds() - start) / (TIMED * batch)


class Decoding(Dataset[int]):
    """Nothing but decoding, in a worker too: what else the machine does slows all cases alike."""

    def __init__(self, encoded: list[bytes]) -> None:
        self.encoded = encoded

    def __getitem__(self, i: int) -> int:
        return len(decode(self.encoded[i]))


def decoded(encoded: list[bytes], batch: int = BATCH) -> Iterator[object]:
    order = list(range(len(encoded))) * 40
    return iter(DataLoader(Decoding(encoded), batch, sampler=order, num_workers=1))


def written(folder: Path, encoded: list[bytes]) -> tuple[Path, ShardSet]:
    """The images as an image folder and as shards."""
    (folder / "images" / "all").mkdir(parents=True)
    (folder / "shards").mkdir()
    for i, image in enumerate(encoded):
        (folder / "images" / "all" / f"{i:04d}.jpg").write_bytes(image)
    pack_images(folder / "shards", encoded, "jpg", len(encoded), shard_size=32)
    return folder / "images", open_shards(str(folder / "shards")).train


def main(rounds: int = 5) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    encoded = jpegs(IMAGES)
    sizes = [len(image) for image in encoded]
    large = jpegs(LARGE, 3000, 4000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, shards = written(folder / "usual", encoded)
        large_images, large_shards = written(folder / "large", large)
        cases: dict[str, Callable[[], float]] = {
            "PIL uint8": lambda: seconds_per_image(theirs(images, floats=False)),
            "PIL float32": lambda: seconds_per_image(theirs(images, floats=True)),
            "uint8 views": lambda: seconds_per_image(ours(shards, floats=False, complete=True)),
            "float32 views": lambda: seconds_per_image(ours(shards, floats=True, complete=True)),
            "crops only": lambda: seconds_per_image(ours(shards, floats=False, complete=False)),
            "decode": lambda: seconds_per_image(decoded(encoded)),
            "12 MP PIL": lambda: seconds_per_image(
                theirs(large_images, False, LARGE_BATCH), LARGE_BATCH
            ),
            "12 MP views": lambda: seconds_per_image(
                ours(large_shards, False, True, LARGE_BATCH), LARGE_BATCH
            ),
            "12 MP decode": lambda: seconds_per_image(decoded(large, LARGE_BATCH), LARGE_BATCH),
        }
        taken: dict[str, list[float]] = {case: [] for case in cases}
        for _ in range(rounds):
            for case, measure in cases.items():
                taken[case].append(measure())

    def ratio(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(taken[one], taken[other], strict=True))

    print(f"{_device_name(torch.device('cpu'))}, one thread per process")
    print(f"{IMAGES} JPEGs of {min(sizes) / 1e3:.0f} to {max(sizes) / 1e3:.0f} KB, two views each")
    for case, against in (
        ("PIL uint8", "PIL uint8"),
        ("PIL float32", "PIL float32"),
        ("uint8 views", "PIL uint8"),
        ("float32 views", "PIL float32"),
        ("crops only", "PIL uint8"),
        ("decode", "PIL uint8"),
        ("12 MP PIL", "12 MP PIL"),
        ("12 MP views", "12 MP PIL"),
        ("12 MP decode", "12 MP PIL"),
    ):
        if case != against:
            speed = {each: 1 / statistics.median(taken[each]) for each in (case, against)}
            found = f"{speed[case]:.3g} images/CPU-second"
            row(case, found, f"{against} {speed[against]:.3g}", ratio(against, case))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
