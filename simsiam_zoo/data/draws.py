"""What is drawn for a view of an image: the same whoever asks, and when."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from simsiam_zoo.data.image import ViewParams
from simsiam_zoo.errors import PluginError, ZooError, describe_error


class Augmentation(Protocol):
    """What an augmentation component gives.

    It may also have `apply(image, view, size)`, used in place of `render_view`: from
    uint8 [H, W, 3] to uint8 [size, size, 3]. And `view_sizes(size)`: the side in pixels of each
    view of an image, where `data.image_size` is `size`; without it there are as many views as the
    gradient policy compares, all of `data.image_size`.
    """

    def sample(
        self, generator: np.random.Generator, view: int, size: tuple[int, int]
    ) -> ViewParams:
        """Draw the parameters of the `view`-th view of an image of `size` (height, width)."""


class Draws:
    """A random generator for each (seed, epoch, id, view): the same whoever asks, and when.

    One Philox bit generator is re-keyed (1 us) rather than one made for each view (7 us).
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.Philox(key=0)
        self._generator = np.random.Generator(self._bits)
        self._state: Any = self._bits.state  # before any draw: its buffer is empty
        self._state["state"]["key"][0] = seed & 0xFFFFFFFFFFFFFFFF

    def at(self, epoch: int, id: int, view: int) -> np.random.Generator:
        """The generator at the start of that view's own 2^64 blocks; good until the next call."""
        self._state["state"]["key"][1] = epoch
        self._state["state"]["counter"][:] = (0, view, id, 0)
        self._bits.state = self._state
        return self._generator

    def params(
        self, augmentation: Augmentation, epoch: int, id: int, view: int, size: tuple[int, int]
    ) -> ViewParams:
        """What the augmentation draws for that view of an image of `size` (height, width).

        PluginError: it fails, or gives no crop of the image.
        """
        try:
            drawn = augmentation.sample(self.at(epoch, id, view), view, size)
            left, top, right, bottom = drawn.box
        except ZooError:
            raise
        except Exception as error:
            kind = type(augmentation)
            what = f"the augmentation {kind.__name__} failed on an image of {size[1]} x {size[0]}"
            raise PluginError(f"{what}: {describe_error(error, kind.__module__)}") from error
        if not (0 <= left < right <= size[1] and 0 <= top < bottom <= size[0]):
            raise PluginError(
                f"the augmentation {type(augmentation).__name__} drew the crop {drawn.box} of an"
                f" image of {size[1]} x {size[0]}",
                "Keep left, top, right, bottom within the image's width and height.",
            )
        return drawn
