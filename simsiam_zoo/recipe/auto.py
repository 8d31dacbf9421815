"""What `auto` means in a recipe where the data decides it: measured before the recipe is complete.

A recipe has numbers alone: they are what a run records, and what its resume, its evaluation and its
export use. All of it follows from the training images, never from a test image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from simsiam_zoo.errors import DataError, InputError

if TYPE_CHECKING:
    from simsiam_zoo.data.shards import Dataset, ShardSet

AUTO = (
    "data.image_size",
    "data.mean",
    "data.std",
    "data.validation",
    "training.batch_size",
    "training.epochs",
)
"""The keys that may be `auto` until the data is known."""

SIZES = (32, 64, 96)
"""Sides of a view: the largest that is not above the median of the images' short sides."""

BATCH = 64
"""Images a step, where half of the training images are as many."""

STEPS = 1000
"""Steps of a run, so many epochs as that takes."""

EPOCHS = (10, 500)
"""The fewest and the most."""

HELD_OUT = 0.2
"""Of labelled images without test images."""

_IMAGES, _SHARDS = 256, 8  # that are measured, at most

Values = dict[str, Any]


class Measured(NamedTuple):
    """Of some training images: the median of their short sides; of each channel, in 0..1."""

    short_side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def take_out(tree: dict[str, Any]) -> list[str]:
    """The keys of a recipe's tree that are `auto`; defaults stand in for them."""
    found = []
    for path in AUTO:
        section, key = path.split(".")
        table = tree.get(section)
        if isinstance(table, dict) and isinstance(table.get(key), str) and table[key] == "auto":
            tree[section] = {name: value for name, value in table.items() if name != key}
            if key in ("mean", "std"):
                tree[section][key] = [0.5]  # for however many channels there are
            found.append(path)
    return found


_known: dict[tuple[object, ...], Values] = {}  # a study asks for every arm


def choose(
    wanted: Collection[str],
    dataset: Dataset,
    validation: float,
    divided: Callable[[float], Dataset],
) -> Values:
    """A value for each key that is wanted, by its dotted path.

    Args:
        validation: the share that is held out, unless that is wanted too.
        divided: the data set with such a share held out.

    Raises InputError where the data cannot be divided so, DataError where no image can be read.
    """
    key = (dataset.digest, dataset.train.channels, validation, *sorted(wanted))
    if key in _known:
        return _known[key]
    values: Values = {}
    if "data.validation" in wanted:
        values["data.validation"] = validation = _share(dataset, divided)
    train = divided(validation).train
    count = len(train)
    batch = 2 ** min(int(math.log2(BATCH)), max(1, int(math.log2(max(2, count // 2)))))
    steps = max(1, count // batch)
    values["training.batch_size"] = batch
    values["training.epochs"] = min(max(math.ceil(STEPS / steps), EPOCHS[0]), EPOCHS[1])
    if not {"data.image_size", "data.mean", "data.std"}.isdisjoint(wanted):
        found = measure(train)
        fitting = [size for size in SIZES if size <= found.short_side]
        values["data.image_size"] = max(fitting, default=SIZES[0])
        values |= {"data.mean": list(found.mean), "data.std": list(found.std)}
    values = {path: value for path, value in values.items() if path in wanted}
    _tell(values, count)
    return _known.setdefault(key, values)


def _tell(values: Mapping[str, Any], count: int) -> None:
    from simsiam_zoo.runtime.progress import tell

    if share := values.get("data.validation"):
        tell(
            f"note: there are labels and no test images, so {share:.0%} of the images are held out"
            " and measured on (data.validation)"
        )
    words = [
        f"{path.partition('.')[2]} {' '.join(map(str, v)) if isinstance(v, list) else v}"
        for path, v in values.items()
        if path != "data.validation"
    ]
    if words:
        tell(f"auto, by the {count:,} training images: {', '.join(words)}")


def _share(dataset: Dataset, divided: Callable[[float], Dataset]) -> float:
    """What to hold out: nothing where there are test images, or not a label for each image."""
    if dataset.test is not None or dataset.train.cache is not None:
        return 0.0  # labels of remote shards are known when all are fetched
    labels = dataset.train.labels()
    if labels.min() < 0 or labels.min() == labels.max():
        return 0.0
    try:
        divided(HELD_OUT)
    except InputError:  # a class has one image alone
        return 0.0
    return HELD_OUT


def measure(train: ShardSet) -> Measured:
    """Mean and standard deviation of the pixels of each channel, every image counting alike.

    It is taken of 256 images at most, evenly spaced over 8 shards at most. Those that are damaged
    are passed over; DataError where all are. To four decimals.
    """
    import numpy as np

    from simsiam_zoo.data.decode import decode_as, to_rgb
    from simsiam_zoo.data.order import evenly

    counts, starts = np.array(train.counts), train.offsets
    shards = np.flatnonzero(counts)[evenly(int((counts > 0).sum()), _SHARDS)]
    sides, means, squares = [], [], []
    for shard in shards.tolist():
        for id in (starts[shard] + evenly(int(counts[shard]), _IMAGES // len(shards))).tolist():
            try:
                image = decode_as(train.read(id).image, train.channels)
            except DataError:
                continue
            image = to_rgb(image) if train.channels == 3 else np.atleast_3d(image)
            levels = np.iinfo(image.dtype).max
            values = np.arange(levels + 1) / levels
            channels = np.moveaxis(image, 2, 0).reshape(image.shape[2], -1)
            counted = np.stack([np.bincount(each, minlength=levels + 1) for each in channels])
            shares = counted / channels.shape[1]
            sides.append(min(image.shape[:2]))
            means.append(shares @ values)
            squares.append(shares @ values**2)
    if not sides:
        raise DataError("no training image can be read, so nothing is known of their pixels")
    mean = np.mean(means, 0)
    std = np.sqrt(np.maximum(np.mean(squares, 0) - mean**2, 1e-4))
    return Measured(int(np.median(sides)), tuple(_rounded(mean)), tuple(_rounded(std)))


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(float(value), 4) for value in values]
