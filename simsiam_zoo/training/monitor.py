"""Signs of life and of collapse, looked at while the network trains.

Looking draws no random number and leaves BN statistics and module modes as they were, so that runs
with and without it end with the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.evaluation.features import FeatureSplits, extract, frozen
from simsiam_zoo.evaluation.geometry import effective_rank
from simsiam_zoo.evaluation.knn import KnnProtocol
from simsiam_zoo.metrics import online_row
from simsiam_zoo.model.siamese import Batch, Siamese
from simsiam_zoo.training.record import Row
from simsiam_zoo.training.setup import (
    Setup,
    centre_batches,
    evenly,
    monitor_ids,
    to_device,
)

QUERIES = 512
"""Test images whose class the kNN check predicts, out of `evaluation.rank_samples` neighbours."""

KEPT_BYTES = 256e6
"""Decoded images that are kept between looks, at most: 1,024 and 512 of 224 px are 231 MB."""


def look(setup: Setup) -> Row:
    """Effective rank of z, and kNN top-1 where there are labels, on fixed subsets.

    Training images give the rank and are kNN's neighbours, test images are its queries. Nothing of
    the training depends on what is seen here.
    """
    if setup.recipe.data.stream:  # no image can be found again
        return {}
    siamese, runtime, test = setup.siamese, setup.runtime, setup.dataset.test
    backbone = {"backbone": frozen(siamese.backbone, runtime)}
    encoders = {"z": frozen(siamese, runtime, siamese.encode), **backbone}
    bank = extract(bank_views(setup), encoders)
    row: Row = {"effective_rank": effective_rank(bank.by_encoder["z"])}
    if test is not None and setup.classes is not None:
        queries = extract(_views(setup, "queries", test, evenly(len(test), QUERIES)), backbone)
        splits = FeatureSplits(bank.of("backbone"), queries.of("backbone"), setup.classes)
        (found,) = KnnProtocol(k=20, t=0.1)(splits)
        row |= online_row(found.protocol, found.top1, len(queries.labels), len(bank.labels))
    return row


def embedding_rank(setup: Setup, siamese: Siamese) -> float | None:
    """Effective rank of z of the images that `look` looks at; None where the run reads a stream."""
    if setup.recipe.data.stream:
        return None
    encode = frozen(siamese, setup.runtime, siamese.encode)
    return effective_rank(extract(bank_views(setup), {"z": encode}).by_encoder["z"])


def bank_views(setup: Setup) -> Iterator[Batch]:
    """Normalised centre views of the training images that are looked at."""
    return _views(setup, "bank", setup.dataset.train, monitor_ids(setup))


def _views(setup: Setup, name: str, shards: ShardSet, ids: NDArray[np.int64]) -> Iterator[Batch]:
    """Normalised centre views of `ids`, decoded once if there is room to keep them."""
    kept = setup.kept.get(name)
    if kept is not None:
        yield from (to_device(setup, loaded) for loaded in kept)
        return
    size = 3 * setup.recipe.data.image_size**2  # bytes of an image
    there = sum(len(loaded.labels) for batches in setup.kept.values() for loaded in batches)
    keep = (there + len(ids)) * size <= KEPT_BYTES
    loaded_now = []
    for loaded in centre_batches(setup, shards, ids):
        if keep:
            loaded_now.append(loaded)
        yield to_device(setup, loaded)
    if keep:  # only now is it whole
        setup.kept[name] = loaded_now
