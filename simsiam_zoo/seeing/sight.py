"""What a run's network makes of its images: everything on the page that needs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from simsiam_zoo.data.shards import Dataset, ShardSet
from simsiam_zoo.evaluation.knn import knn_predict
from simsiam_zoo.seeing.embedding import Embedding, Network
from simsiam_zoo.seeing.layout import Method, lay_out
from simsiam_zoo.seeing.neighbors import Confusion, confuse, nearest
from simsiam_zoo.seeing.pictures import Sprite, picture, sprite
from simsiam_zoo.training.setup import evenly

MAP_POINTS = 2000
NEIGHBORS = 8
K, T = 20, 0.1  # of the kNN that is confused: the verdict's
_SAMPLED, _WRONG = 8, 4  # queries of the gallery


@dataclass(frozen=True)
class Shown:
    """One image with its caption. `right` says whether its class is the query's, if there are."""

    uri: str
    label: str
    similarity: float | None = None
    right: bool | None = None


@dataclass(frozen=True)
class Gallery:
    """A query and the images that are most similar to it."""

    query: Shown
    neighbors: list[Shown]


@dataclass(frozen=True)
class Map:
    """Images on a plane.

    Attributes:
        method: UMAP, t-SNE or PCA.
        points: [N, 2] within 0 to 1.
        labels: [N], -1 where there is none.
        thumbnails: of the images, in the order of the points.
    """

    method: str
    points: NDArray[np.float64]
    labels: list[int]
    thumbnails: Sprite


@dataclass(frozen=True)
class Sight:
    """What was seen.

    Attributes:
        split: `test`, or `training` where there are no test images.
        bank, queries: images looked at as (these, of so many).
        classes: names; None where any of the images has no label.
        sampled, wrong: galleries of queries taken evenly, and of misclassified ones.
        confusion: None without labels or test images.
    """

    split: str
    bank: tuple[int, int]
    queries: tuple[int, int]
    damaged: int
    classes: list[str] | None
    map: Map
    sampled: list[Gallery]
    wrong: list[Gallery]
    confusion: Confusion | None


def see(
    network: Network,
    dataset: Dataset,
    *,
    most: int,
    method: Method = "auto",
    shown: Callable[[int], None] = lambda done: None,
) -> Sight:
    """Look at the test images among the training images; at training images without the former.

    Args:
        network, dataset: the run's.
        most: images of each split that are looked at, evenly spaced.
        method: of the map.
        shown: told how many images are done.

    Raises:
        DataError: a shard cannot be read. Damaged images are left out.
        PluginError: the method is not installed.
    """
    train, test = dataset.train, dataset.test
    bank = network.embed(train, evenly(len(train), most), skip_damaged=True, shown=shown)
    if test is None:
        queries, query_set = bank, train
    else:
        before = len(bank.ids) + len(bank.damaged)
        queries = network.embed(
            test,
            evenly(len(test), most),
            skip_damaged=True,
            shown=lambda done: shown(before + done),
        )
        query_set = test
    classes = _class_names(dataset.classes, bank, queries)
    predicted = None
    if classes is not None and test is not None:
        predicted = knn_predict(bank.x, bank.labels, queries.x, len(classes), K, T)
    curator = _Curator(network, bank, train, queries, query_set, classes)
    wrong = [] if predicted is None else torch.nonzero(predicted != queries.labels)[:, 0].tolist()
    return Sight(
        split="training" if test is None else "test",
        bank=(len(bank.ids), len(train)),
        queries=(len(queries.ids), len(query_set)),
        damaged=len(bank.damaged) + (len(queries.damaged) if test is not None else 0),
        classes=classes,
        map=_map(network, queries, query_set, method),
        sampled=curator.galleries(evenly(len(queries.ids), _SAMPLED).tolist()),
        wrong=curator.galleries([wrong[i] for i in evenly(len(wrong), _WRONG)] if wrong else []),
        confusion=None
        if predicted is None or classes is None
        else confuse(predicted, queries.labels, len(classes)),
    )


def images_looked_at(dataset: Dataset, most: int) -> int:
    """How many `see` will tell of."""
    return sum(min(len(s), most) for s in (dataset.train, dataset.test) if s is not None)


def _class_names(
    named: tuple[str, ...] | None, bank: Embedding, queries: Embedding
) -> list[str] | None:
    labels = torch.cat([bank.labels, queries.labels])
    if int(labels.min()) < 0:
        return None
    count = max(len(named or ()), 1 + int(labels.max()))
    names = list(named or ())
    return names + [str(label) for label in range(len(names), count)]


def _map(network: Network, queries: Embedding, shards: ShardSet, method: Method) -> Map:
    chosen = evenly(len(queries.ids), MAP_POINTS)
    points, name = lay_out(queries.x[chosen].numpy(), method)
    thumbnails = sprite(shards, queries.ids[chosen].tolist(), network.recipe.evaluation.crop)
    return Map(name, points, queries.labels[chosen].tolist(), thumbnails)


@dataclass(frozen=True)
class _Curator:
    network: Network
    bank: Embedding
    bank_set: ShardSet
    queries: Embedding
    query_set: ShardSet
    classes: list[str] | None

    def galleries(self, places: Sequence[int]) -> list[Gallery]:
        """Of the queries at these places."""
        if not places:
            return []
        own = places if self.queries is self.bank else None
        found = nearest(self.bank.x, self.queries.x[list(places)], NEIGHBORS, own)
        return [
            self._gallery(place, near, similarity)
            for place, near, similarity in zip(places, found.places, found.similarity, strict=True)
        ]

    def _gallery(self, place: int, near: Sequence[int], similarity: Sequence[float]) -> Gallery:
        label = int(self.queries.labels[place])
        query = self._picture(self.query_set, int(self.queries.ids[place]))
        neighbors = []
        for row, value in zip(near, similarity, strict=True):
            theirs = int(self.bank.labels[row])
            right = None if self.classes is None else theirs == label
            uri = self._picture(self.bank_set, int(self.bank.ids[row]))
            neighbors.append(Shown(uri, self._name(theirs), value, right))
        return Gallery(Shown(query, self._name(label)), neighbors)

    def _picture(self, shards: ShardSet, id: int) -> str:
        return picture(shards, id, self.network.recipe.evaluation.crop)

    def _name(self, label: int) -> str:
        return "" if self.classes is None else self.classes[label]
