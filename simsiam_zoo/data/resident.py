"""Training images that rest on the device as uint8, so that a small data set meets no worker."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simsiam_zoo.data.decode import Pixels, decode_any, to_rgb
from simsiam_zoo.data.device_views import to_device
from simsiam_zoo.data.index import ImageError
from simsiam_zoo.data.order import evenly
from simsiam_zoo.data.shards import ShardSet

SHARE = 0.25
"""Of the device's memory, what images may take where `data.resident` is auto."""

_LOOKED_AT = 256  # images whose sizes stand for all
_TOGETHER = 4096  # images that are copied at once


@dataclass(frozen=True)
class ResidentIndex:
    """All that is known of resident images beside their pixels. It can be sent to workers."""

    sizes: NDArray[np.int64]
    """(height, width) of each, [n, 2]; 0 of a damaged one."""
    labels: NDArray[np.int64]
    damaged: dict[int, ImageError]

    def outline(self, id: int) -> tuple[int, Pixels]:
        """An image's label, and pixels that have its shape [H, W] and no memory: to draw views of.

        Raises ImageError where it is damaged, as reading it does.
        """
        if id in self.damaged:
            raise self.damaged[id]
        height, width = self.sizes[id].tolist()
        return int(self.labels[id]), np.broadcast_to(np.uint8(0), (height, width))


class Resident:
    """The images of a shard set on a device; they are decoded and copied when first asked for.

    Images of one size lie side by side, [n, C, H, W]; those of many sizes end to end.
    """

    def __init__(self, shards: ShardSet, device: torch.device) -> None:
        self._shards, self._device = shards, device

    @property
    def index(self) -> ResidentIndex:
        """What is known of them."""
        return self._all[1]

    def images(self, ids: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        """Images, each in the upper left corner and 0 beyond its size, and their sizes [N, 2].

        Images are uint8 [N, C, H, W] on the device, C being 1 where every image is grey.
        """
        pixels, sizes = self._all[0], self.index.sizes[ids]
        if pixels.dim() == 4:
            return pixels[to_device(ids, self._device)], sizes
        height, width = sizes.max(axis=0).tolist()
        about = to_device(np.column_stack([self._starts[ids], sizes]), self._device)
        start, rows, columns = about.T.view(3, -1, 1, 1)
        y = torch.arange(height, device=self._device).view(-1, 1)
        x = torch.arange(width, device=self._device)
        inside = (y < rows) & (x < columns)
        at = torch.where(inside, start + y * columns + x, 0)
        found = pixels[at] * inside.unsqueeze(-1)
        return found.permute(0, 3, 1, 2).contiguous(), sizes

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """Where each image starts among the pixels."""
        height, width = self.index.sizes.T
        starts: NDArray[np.int64] = np.cumsum(height * width) - height * width
        return starts

    @cached_property
    def _all(self) -> tuple[Tensor, ResidentIndex]:
        """The pixels on the device, and what is known of the images."""
        count = len(self._shards)
        sizes, labels = np.zeros((count, 2), np.int64), self._shards.labels()
        damaged: dict[int, ImageError] = {}
        parts: list[Tensor] = []
        waiting: list[Pixels] = []
        for id in range(count):
            try:
                image = decode_any(self._shards.read(id).image)
            except ImageError as error:
                damaged[id] = error
            else:
                sizes[id] = image.shape[:2]
                waiting.append(image)
            if len(waiting) == _TOGETHER or (waiting and id == count - 1):
                parts.append(self._copied(waiting))
                waiting = []
        if any(part.shape[1] == 3 for part in parts):
            parts = [part.expand(-1, 3) for part in parts]
        pixels = torch.cat(parts) if parts else torch.zeros(0, 1, dtype=torch.uint8)
        if not damaged and len(np.unique(sizes, axis=0)) == 1:
            height, width = sizes[0].tolist()
            pixels = pixels.view(count, height, width, -1).permute(0, 3, 1, 2).contiguous()
        return pixels, ResidentIndex(sizes, labels, damaged)

    def _copied(self, images: Sequence[Pixels]) -> Tensor:
        """Their pixels, end to end [pixels, C]."""
        if any(image.ndim == 3 for image in images):
            images = [to_rgb(image) for image in images]
        channels = 1 if images[0].ndim == 2 else 3
        flat = np.concatenate([image.reshape(-1, channels) for image in images])
        return torch.from_numpy(flat).to(self._device)


def expected_bytes(shards: ShardSet) -> int:
    """About what the decoded images of a set take, from a look at some of them."""
    sizes = []
    for id in evenly(len(shards), _LOOKED_AT).tolist():
        try:
            sizes.append(decode_any(shards.read(id).image).size)
        except ImageError:
            continue
    return round(len(shards) * sum(sizes) / max(1, len(sizes)))


def memory_of(device: torch.device) -> int:
    """Bytes that a device has in all; of the CPU, the machine's."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
