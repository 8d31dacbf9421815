"""Ids → a batch of uint8 views: the work of one worker process.

A damaged image is replaced by the next good one, cyclically, in its lane's part of the global
batch. That part is the same for every rank, so what replaces an image depends on neither ranks nor
workers, though a rank may have to read beyond its own slice to find it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simsiam_zoo.data.decode import Pixels, decode_as, to_rgb
from simsiam_zoo.data.device_views import COLUMNS, crop_of, write_view
from simsiam_zoo.data.draws import Augmentation, Draws
from simsiam_zoo.data.image import ViewParams, center, render_view
from simsiam_zoo.data.index import ImageError, printable
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.resident import ResidentIndex
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.errors import DataError, InputError, PluginError, describe_error


def view_sizes(
    augmentation: Augmentation, size: int, compared: int, called: str = "", policy: str = ""
) -> tuple[int, ...]:
    """The side of each view of an image in pixels, of a run's `data.image_size`, `size`.

    `compared` is the number of views that the gradient policy takes; 0: any number. Raises
    InputError, in which they have the names `called` and `policy`, where the augmentation gives
    another number.
    """
    stated = stated_sizes(augmentation, size)
    called, policy = called or "the augmentation", policy or "the gradient policy"
    if stated is None and not compared:
        raise InputError(
            f"{policy} takes as many views of an image as the augmentation states, and {called}"
            " states no number",
            "Choose an augmentation that does, as multi-crop of simsiam-zoo-multiview, or another"
            " policy.",
        )
    if stated is None:
        return (size,) * compared
    if compared and len(stated) != compared:
        raise InputError(
            f"{called} gives {len(stated)} views of each image, and {policy} compares {compared}",
            "Choose a policy that compares so many, or as many as there are, as multi-crop does"
            " (simsiam-zoo list gradient).",
        )
    return stated


def stated_sizes(augmentation: Augmentation, size: int) -> tuple[int, ...] | None:
    """What the augmentation's own `view_sizes` gives; None where it has none."""
    own: Any = getattr(augmentation, "view_sizes", None)
    return None if own is None else tuple(map(int, own(size)))


class Damage(NamedTuple):
    """A damaged image, met on the way."""

    id: int
    name: str  # shard: key
    reason: str
    row: int = -1
    """The row of the batch that another image fills in its place; -1 where it was left out."""


Shape = tuple[int, ...]
"""(views, images, side, side, channels) of views of one size that follow each other. Without
channels it is for views that the device makes of its own images."""


def bytes_of(shapes: Iterable[Shape]) -> int:
    """What such pixels take: a byte for each of three channels, two for each of others."""
    return sum(math.prod(shape) * (1 if shape[-1] in (0, 3) else 2) for shape in shapes)


def canvases(memory: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """The memory of a batch, uint8 [bytes], as tensors of these shapes: uint8 or uint16."""
    parts = torch.split(memory, [bytes_of([shape]) for shape in shapes])
    typed = zip(parts, shapes, strict=True)
    return [
        (part if shape[-1] in (0, 3) else part.view(torch.uint16)).view(shape)
        for part, shape in typed
    ]


@dataclass
class LoadedBatch:
    """One rank's share of a step: N samples, V views of each."""

    memory: Tensor  # of all pixels, uint8 [bytes]
    shapes: Sequence[Shape]  # and what lies in it, one after the other
    ids: Tensor  # dense sample ids, int64 [N]; of what is in the row, after replacements
    labels: Tensor  # int64 [N], -1 where there is none
    epoch: int = 0
    step: int = 0
    damaged: tuple[Damage, ...] = ()  # images that were replaced, or left out of an evaluation
    drawn: NDArray[np.float32] | None = None
    """What the device has to do yet, [all views, N, COLUMNS]; None where the views are done."""

    @property
    def pixels(self) -> list[Tensor]:
        """The views, those of one size that follow each other in one tensor: [V, N, C, S, S],
        channels last. uint8 of three channels, C being 0 where the device makes views of its
        images; uint16 of other numbers of channels.
        """
        return [part.permute(0, 1, 4, 2, 3) for part in canvases(self.memory, self.shapes)]

    @property
    def views(self) -> list[Tensor]:
        """The views, each uint8 [N, 3, S, S], channels last in memory."""
        return [view for part in self.pixels for view in part]

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return self.memory.nbytes

    def pin_memory(self) -> LoadedBatch:
        """A copy in page-locked memory, from which a GPU copies while the host goes on."""
        memory = self.memory.pin_memory() if self.memory.numel() else self.memory
        ids, labels = self.ids.pin_memory(), self.labels.pin_memory()
        return replace(self, memory=memory, ids=ids, labels=labels)


Room = Callable[[int], Tensor]
"""Bytes → memory for the pixels of a batch, uint8 [bytes]."""


@dataclass(eq=False)
class TrainBatches:
    """(epoch, step, ids) → the batch of their drawn views, for one rank of `world`.

    Args:
        shards, plan: the training shards; the plan is over their `counts`.
        augmentation, views, seed: draws so many views of each image, from (seed, epoch, id, view);
            0 views: as many as the augmentation states (`view_sizes`).
        image_size: side of the views in pixels, where the augmentation states no other.
        rank, world: which slice of each global batch. Raises InputError where there is none.
        split: leave to the device what follows a view's crop.
        resident: images that the device makes the views of: nothing but the drawing is done here.
    """

    shards: ShardSet
    plan: SampleOrder
    augmentation: Augmentation
    image_size: int
    views: int = 2
    seed: int = 0
    rank: int = 0
    world: int = 1
    split: bool = False
    resident: ResidentIndex | None = None

    def __post_init__(self) -> None:
        self.plan.share(self.world)
        self.sides = view_sizes(self.augmentation, self.image_size, self.views)

    def make(self, item: tuple[int, int, NDArray[np.int64]], room: Room) -> LoadedBatch:
        """The batch. Raises DataError where a shard is damaged, or a lane's whole part of it."""
        epoch, step, ids = item
        draws, apply = Draws(self.seed), getattr(self.augmentation, "apply", None)
        shapes = self.shapes(len(ids))
        memory = room(bytes_of(shapes))
        out: list[Pixels] = [view for part in canvases(memory, shapes) for view in part.numpy()]
        later = self.split or self.resident is not None
        drawn = np.empty((len(self.sides), len(ids), COLUMNS), np.float32) if later else None
        shown, labels = ids.copy(), np.empty(len(ids), np.int64)
        found = _Found(self.shards, self.resident)
        for row, id in enumerate(ids.tolist()):
            read = found.read(id, row)
            if read is None:
                shown[row], read = self._replacement(found, epoch, step, row)
            labels[row], image = read
            for v in range(len(self.sides)):
                extent = image.shape[0], image.shape[1]
                # Drawn for the id that was planned: a replacement, whose image may be in the
                # batch already, is not seen twice in the same view.
                view = draws.params(self.augmentation, epoch, id, v, extent)
                if drawn is not None:
                    write_view(view, drawn[v, row])
                    view = crop_of(view)
                if self.resident is None:
                    draw_view(apply, image, view, out[v][row])
        known = torch.from_numpy(shown), torch.from_numpy(labels)
        damaged = tuple(found.replaced)
        return LoadedBatch(memory, shapes, *known, epoch, step, damaged, drawn)

    def shapes(self, images: int) -> list[Shape]:
        """Of a batch of so many images: one for each run of views of one size."""
        channels = 0 if self.resident else self.shards.channels
        runs = ((side, len(list(same))) for side, same in groupby(self.sides))
        return [(views, images, side, side, channels) for side, views in runs]

    def _replacement(
        self, found: _Found, epoch: int, step: int, row: int
    ) -> tuple[int, tuple[int, Pixels]]:
        """The next good image after that row's in its lane's part of the global batch."""
        parts = self.plan.ids(epoch, step).reshape(self.plan.lanes, -1)
        lane, at = divmod(self.rank * self.plan.share(self.world) + row, parts.shape[1])
        for id in np.roll(parts[lane], -at)[1:].tolist():
            if (read := found.read(id)) is not None:
                return id, read
        raise DataError(
            f"epoch {epoch}, step {step}: all {parts.shape[1]} images of a lane's part of the batch"
            f" are damaged; {found.replaced[-1].name}: {found.replaced[-1].reason}",
            "Restore the shards, or pack them again.",
        )


@dataclass(eq=False)
class EvalBatches:
    """Ids → the batch of their center views.

    A damaged image is an error; or, where `skip_damaged` says so, left out.
    """

    shards: ShardSet
    size: int
    crop: float
    skip_damaged: bool = False

    def make(self, ids: Sequence[int], room: Room) -> LoadedBatch:
        """The batch. Raises DataError where a shard is damaged, or an image that must be in it."""
        shapes = self.shapes(len(ids))
        memory = room(bytes_of(shapes))
        out: Pixels = canvases(memory, shapes)[0].numpy()
        kept: list[tuple[int, int]] = []  # id, label
        found = _Found(self.shards)
        for id in ids:
            read = found.read(id)
            if read is not None:
                _place(center(read[1], self.size, self.crop), out[0, len(kept)])
                kept.append((id, read[0]))
        damaged = tuple(found.damaged.values())
        alone = len(ids) == 1  # the last of an evaluation's batches may be a single image
        if damaged and not (self.skip_damaged and (kept or alone)):
            first = f"{damaged[0].name}: {damaged[0].reason}"
            more = f" (and {len(damaged) - 1} more among {len(ids)})" if len(damaged) > 1 else ""
            raise DataError(first + more, "Restore the shard, or pack it again.")
        chosen, labels = torch.tensor(kept, dtype=torch.int64).reshape(-1, 2).T.contiguous()
        shapes = self.shapes(len(kept))
        return LoadedBatch(memory[: bytes_of(shapes)], shapes, chosen, labels, damaged=damaged)

    def shapes(self, images: int) -> list[Shape]:
        """Of a batch of so many images: one view of each."""
        return [(1, images, self.size, self.size, self.shards.channels)]


class _Found:
    """What was found damaged while one batch was made."""

    def __init__(self, shards: ShardSet, resident: ResidentIndex | None = None) -> None:
        self._shards, self._resident = shards, resident
        self.damaged: dict[int, Damage] = {}  # by id
        self.replaced: list[Damage] = []  # those that were to fill a row, in the order of rows

    def read(self, id: int, row: int = -1) -> tuple[int, Pixels] | None:
        """A sample's label and pixels, or None where its image is damaged; tried once.

        Of a resident image the pixels have a shape and nothing else. Raises DataError where the
        shard is damaged.
        """
        if id not in self.damaged:
            try:
                if self._resident is not None:
                    return self._resident.outline(id)
                sample = self._shards.read(id)
                return sample.label, decode_as(sample.image, self._shards.channels)
            except ImageError as error:
                self.damaged[id] = Damage(id, self._shards.name(id), printable(error.what.encode()))
        if row >= 0:
            self.replaced.append(self.damaged[id]._replace(row=row))
        return None


def draw_view(apply: Any, image: Pixels, view: ViewParams, slot: Pixels) -> None:
    """Write a view of an image into `slot`, [S, S, C] of the image's type.

    `apply` is the augmentation's own, which is given RGB; None: `render_view`. PluginError: it
    fails, or gives another shape.
    """
    if apply is None:
        _place(render_view(image, view, len(slot)), slot)
        return
    rgb, size = to_rgb(image), len(slot)
    try:
        _place(apply(rgb, view, size), slot)
    except Exception as error:  # told here, for in a worker's error the place of it is lost
        what = f"the augmentation's {apply.__qualname__} failed on an image {[*rgb.shape]}"
        raise PluginError(f"{what}: {describe_error(error, apply.__module__)}") from error


def _place(view: Pixels, slot: Pixels) -> None:
    if view.ndim == 2 and slot.shape[2] == 1:
        slot[..., 0] = view
    else:
        slot[...] = to_rgb(view)
