"""What is in shards: counts, classes, their order, sizes, formats, damage; and a contact sheet."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from simsiam_zoo.data.bands import band_format
from simsiam_zoo.data.decode import Pixels, as_stored, decode_any, decode_as, to_rgb
from simsiam_zoo.data.index import load_index, printable
from simsiam_zoo.data.order import evenly
from simsiam_zoo.data.processes import run_tasks
from simsiam_zoo.data.scan import describe_findings, image_format
from simsiam_zoo.data.shards import Dataset, ShardSet
from simsiam_zoo.data.stated import Shard, check_sha256
from simsiam_zoo.errors import DataError, InputError

if TYPE_CHECKING:  # processes that look at images need no torch
    from simsiam_zoo.data.draws import Augmentation

_AT_ONCE = 64
_SIZES_LISTED = 20


class ImageCheck(NamedTuple):
    """One image that was looked at."""

    id: int
    format: str
    height: int
    width: int
    problem: str | None
    pixels: str = ""
    """Channels and bits of an array or a TIFF."""


def _check_part(
    shards: ShardSet, parts: list[list[int] | Shard], number: int
) -> list[ImageCheck] | tuple[str, str] | None:
    """Check one part of the images; or one shard, and tell what is wrong with it."""
    part = parts[number]
    if isinstance(part, list):
        return [_check(shards, id) for id in part]
    try:
        check_sha256(Path(part.location), part.sha256 or "")
    except DataError as error:
        return part.location, error.what
    return None


def _check(shards: ShardSet, id: int) -> ImageCheck:
    try:
        image = bytes(shards.read(id).image)
        if form := band_format(image[:8]):
            pixels = as_stored(image)
            what = f"{pixels.shape[2]} channels of {8 * pixels.itemsize} bits"
        else:
            pixels, form, what = decode_any(image), image_format(image), ""
        return ImageCheck(id, form, pixels.shape[0], pixels.shape[1], None, what)
    except DataError as error:
        return ImageCheck(id, "", 0, 0, error.what)


def inspect_shards(
    shards: ShardSet,
    most: int | None,
    jobs: int,
    progress: Callable[[int], None] = lambda images: None,
) -> dict[str, Any]:
    """Count what is in shards, and check images: read, compare with its checksum, decode.

    `most` images are looked at, evenly spaced; None: all, and the shards' own checksums. `progress`
    is told how many they were. Gives what was found, as JSON holds it.
    """
    ids = evenly(len(shards), len(shards) if most is None else most).tolist()
    checks: list[ImageCheck] = []
    changed: list[tuple[str, str]] = []
    parts: list[list[int] | Shard] = [
        ids[at : at + _AT_ONCE] for at in range(0, len(ids), _AT_ONCE)
    ]
    if most is None and shards.cache is None:
        parts += [shard for shard in shards.shards if shard.sha256]
    for _, part in run_tasks(partial(_check_part, shards, parts), len(parts), jobs):
        if isinstance(part, list):
            checks += part
            progress(len(checks))
        elif part is not None:
            changed.append(part)
    checks.sort()
    good = [check for check in checks if check.problem is None]
    damaged = [(shards.name(check.id), check.problem) for check in checks if check.problem]
    sizes = Counter(f"{check.width} x {check.height}" for check in good)
    labels = shards.labels()
    known, counts = np.unique(labels[labels >= 0], return_counts=True)
    order = class_order(np.split(labels, shards.offsets[1:-1]))
    notes = (order and order.problem, shards.digest_note)
    return {
        "shards": len(shards.shards),
        "samples": len(shards),
        "bytes": int(shards.bytes.sum()),
        "labelled": int((labels >= 0).sum()),
        "labels": {str(k): int(n) for k, n in zip(known, counts, strict=True)},
        "class_order": order
        and {
            "classes_per_shard": round(order.found, 2),
            "if_shuffled": round(order.expected, 2),
            "ordered": order.problem is not None,
        },
        "looked_at": len(ids),
        "formats": dict(Counter(check.format for check in good).most_common()),
        "channels": dict(Counter(c.pixels for c in good if c.pixels).most_common(_SIZES_LISTED)),
        "sizes": dict(sizes.most_common(_SIZES_LISTED)),
        "width": _spread([check.width for check in good]),
        "height": _spread([check.height for check in good]),
        "damaged": [{"sample": n, "problem": p} for n, p in damaged + sorted(changed)],
        "notes": [*describe_findings(shards.findings()), *filter(None, notes)],
        "digest": shards.digest,
    }


def channels_of(shards: ShardSet) -> int:
    """Channels of the first array or TIFF; 3 of images of other kinds, as they are read."""
    image = shards.read(0).image if len(shards) else b""
    return as_stored(image).shape[2] if band_format(bytes(image[:8])) else 3


def refuse_other_channels(shards: ShardSet) -> None:
    """Stop where the first image has other channels than `shards.channels`. Raises InputError.

    Nothing is fetched for it: of remote shards and of streams no image is looked at.
    """
    if not len(shards) or shards.cache is not None:
        return
    try:
        found = channels_of(shards)
        if found == 3 != shards.channels:  # of a PNG or a JPEG, as it is stored
            found = as_stored(shards.read(0).image).shape[2]
    except DataError:  # whoever needs the image will tell
        return
    if found != shards.channels:
        raise InputError(
            f"the images have {found} channel{'s' * (found != 1)}, and data.channels is"
            f" {shards.channels}"
            f" ({shards.name(0)})",
            f"Say --set data.channels={found} --set data.mean=auto --set data.std=auto.",
        )


def _spread(values: list[int]) -> dict[str, int] | None:
    if not values:
        return None
    return {"min": min(values), "median": int(np.median(values)), "max": max(values)}


_LOOKED_AT = 32  # shards, evenly spaced, before training


def why_unmeasurable(dataset: Dataset, fetch: bool = True) -> str | None:
    """Why nothing can be measured with the labels of a data set, in words; None where it can.

    Without `fetch` nothing is said of remote shards, whose labels are known when they were read.
    """
    for name, shards in (("training", dataset.train), (dataset.measured_on, dataset.test)):
        if shards is None:
            return "there are no test images"
        if shards.cache is not None and (not fetch or dataset.test is None):
            continue
        labels = shards.labels()
        if missing := int((labels < 0).sum()):
            return f"{missing:,} of the {len(labels):,} {name} images have no label"
        if name == "training" and len(labels) and (labels == labels[0]).all():
            return "the training images are all of one class"
    return None


def data_notes(dataset: Dataset) -> list[str]:
    """What a run should say of its data before the first step, a line each."""
    notes = list(dataset.notes)
    if problem := why_unmeasurable(dataset, fetch=False):
        way_out = " (--set dataset.test=SHARDS names some)" * problem.endswith("no test images")
        notes.append(
            f"{problem}{way_out}: nothing that needs labels is measured, and the"
            " verdict says no more than whether a collapse was seen"
        )
        notes += _note_class_shards(dataset.train)
    known = dataset.train.digest_note or (dataset.test.digest_note if dataset.test else None)
    return [*notes, known] if known else notes


def _note_class_shards(shards: ShardSet) -> list[str]:
    """What to say of shards that are each called as the images in them, as ImageNet's tars are.

    `n01440764.tar` holds `n01440764_18.JPEG`. Some makers number shards and images alike, so a
    number is no such name.
    """
    named = []
    for place in evenly(len(shards.shards), _LOOKED_AT).tolist() if shards.cache is None else ():
        stem = Path(shards.shards[place].name).stem
        if stem.isdecimal() or not shards.shards[place].samples:
            return []
        key = shards.read(int(shards.offsets[place])).key
        if not key.startswith(stem):
            return []
        named.append(f"{stem}.tar holds {key}")
    if len(named) < 2:
        return []
    return [
        f"each tar is called as the images in it ({printable(os.fsencode(named[0]))}): where that"
        " is their class, unpack each into a folder of its name, and name the folder around these"
    ]


class ClassOrder(NamedTuple):
    """How many classes a shard holds on average, and would hold if samples were shuffled."""

    found: float
    expected: float

    @property
    def problem(self) -> str | None:
        """What to say where shards hold less than half of the classes that they should; or None."""
        if self.found >= self.expected / 2:
            return None
        return (
            f"the shards are ordered by class: one holds {self.found:.1f} classes where"
            f" {self.expected:.1f} were to be expected. Batches will not be random, whatever the"
            " window; pack the data again: simsiam-zoo pack shuffles it"
        )


def class_order(labels: Sequence[NDArray[np.int64]]) -> ClassOrder | None:
    """Of the labels of several shards; None where there is nothing to be ordered."""
    known = [shard[shard >= 0] for shard in labels]
    known = [shard for shard in known if len(shard) > 1]
    if len(known) < 2:
        return None
    _, counts = np.unique(np.concatenate(known), return_counts=True)
    missing = np.log1p(-counts / counts.sum()) if len(counts) > 1 else np.array([-np.inf])
    expected = [float((1 - np.exp(missing * len(shard))).sum()) for shard in known]
    found = [len(np.unique(shard)) for shard in known]
    return ClassOrder(float(np.mean(found)), float(np.mean(expected)))


def order_warning(shards: ShardSet, window: int) -> str | None:
    """What to say before training on class-ordered shards; None where all is well or unknown.

    Up to 32 are looked at, those at hand; none if all are shuffled together, in one `window`.
    """
    total = len(shards.shards)
    if total <= window:
        return None
    labels = []
    for place in evenly(total, _LOOKED_AT).tolist():
        shard = shards.shards[place]
        try:
            labels.append(load_index(shard.index, shard.bytes).labels)
        except DataError:  # it is elsewhere, or damaged: whoever reads it will tell
            continue
    order = class_order(labels)
    return f"warning: {order.problem}" if order and order.problem else None


def _framed(view: Pixels, side: int) -> Pixels:
    """A view in the middle of a white square."""
    before = (side - len(view)) // 2
    around = (before, side - len(view) - before)
    return np.pad(view, (around, around, (0, 0)), constant_values=255)


_CELL, _GAP = 96, 4  # smaller views are enlarged to about this side, pixel by pixel


def contact_sheet(
    shards: ShardSet,
    augmentation: Augmentation,
    size: int,
    crop: float = 1.0,
    seed: int = 0,
    rows: int = 8,
    epochs: int = 4,
) -> Image.Image:
    """Draw evenly spaced images: as evaluation sees them, and the views of some epochs.

    A row is an image, drawn as `image.shown` says. Views are those that a run of `seed` draws, of
    `size` pixels a side, two in an epoch; or those that the augmentation states, in fewer epochs,
    the smaller ones with a white frame. `crop` is that of the center view. Raises DataError where
    an image is damaged.
    """
    from simsiam_zoo.data.batches import stated_sizes
    from simsiam_zoo.data.draws import Draws
    from simsiam_zoo.data.image import center, render_view, shown

    draws, apply = Draws(seed), getattr(augmentation, "apply", render_view)
    sizes = stated_sizes(augmentation, size) or (size, size)
    epochs, widest = max(1, 2 * epochs // len(sizes)), max(size, *sizes)
    cells = []
    for id in evenly(len(shards), rows).tolist():
        image = decode_as(shards.read(id).image, shards.channels)
        image = to_rgb(image) if shards.channels == 3 else image
        views = [center(image, size, crop)]
        for epoch, number in np.ndindex(epochs, len(sizes)):
            view = draws.params(augmentation, epoch, id, number, image.shape[:2])
            views.append(apply(image, view, sizes[number]))
        cells.append([_framed(shown(view, image), widest) for view in views])
    zoom = max(1, round(_CELL / widest))
    grid = np.array(cells).repeat(zoom, 2).repeat(zoom, 3)  # [row, column, y, x, 3]
    gaps = ((0, 0), (0, 0), (0, _GAP), (0, _GAP), (0, 0))
    sheet = np.pad(grid, gaps, constant_values=255).swapaxes(1, 2)
    return Image.fromarray(sheet.reshape(-1, sheet.shape[2] * sheet.shape[3], 3))
