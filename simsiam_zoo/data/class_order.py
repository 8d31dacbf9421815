"""Whether shards hold their samples class by class, which shuffling in a window cannot repair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.data.index import load_index
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.errors import DataError

_LOOKED_AT = 32  # shards, evenly spaced, before training


class ClassOrder(NamedTuple):
    """How many classes a shard holds.

    Attributes:
        found: the mean over the shards.
        expected: what it would be if the same samples lay in random order.
    """

    found: float
    expected: float

    @property
    def ordered(self) -> bool:
        """Whether shards hold less than half of the classes that they should."""
        return self.found < self.expected / 2


def class_order(labels: Sequence[NDArray[np.int64]]) -> ClassOrder | None:
    """Look at the labels of several shards; None where there is nothing to be ordered."""
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

    Args:
        shards: to train on; up to 32 of them are looked at, those that are at hand.
        window: how many of them are shuffled together. All of them together are a full shuffle.
    """
    total = len(shards.shards)
    if total <= window:
        return None
    labels = []
    for place in sorted(set(np.linspace(0, total - 1, _LOOKED_AT).round().astype(int).tolist())):
        shard = shards.shards[place]
        try:
            labels.append(load_index(shard.index, shard.bytes).labels)
        except DataError:  # it is elsewhere, or damaged: whoever reads it will tell
            continue
    order = class_order(labels)
    if order is None or not order.ordered:
        return None
    return (
        f"warning: the shards are ordered by class: one holds {order.found:.1f} classes where"
        f" {order.expected:.1f} were to be expected. Batches will not be random, whatever the"
        " window; pack the data again: simsiam-zoo pack shuffles it"
    )
