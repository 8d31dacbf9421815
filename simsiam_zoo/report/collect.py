"""The parts of a run's page that need its images: map, neighbours, confusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simsiam_zoo.data.shards import Dataset, ShardSet
from simsiam_zoo.evaluation.knn import nearest, vote
from simsiam_zoo.report.features import Embedding, Network
from simsiam_zoo.report.pictures import Method, Sprite, picture, project, sprite
from simsiam_zoo.training.batches import evenly

MAP_POINTS = 2000
NEIGHBORS = 8
K, T = 20, 0.1  # of the kNN that is confused: the verdict's
_MOST_CLASSES = 20
"""A matrix of more has cells that nobody can read: the classes with most errors are shown."""

_SAMPLED, _WRONG = 8, 4  # queries of the gallery


@dataclass(frozen=True)
class ImageCard:
    """One image with its caption. `right`: it has the query's class; None without labels."""

    uri: str
    label: str
    similarity: float | None = None
    right: bool | None = None


@dataclass(frozen=True)
class Gallery:
    """A query and the images that are most similar to it."""

    query: ImageCard
    neighbors: list[ImageCard]


@dataclass(frozen=True)
class FeatureMap:
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
class Confusion:
    """How often images of one class (row) were taken for another (column).

    Attributes:
        classes: labels of rows and columns.
        counts: [K][K].
        elsewhere: of each row, images taken for a class that is not shown.
        top1: share of all images that were right, 0 to 1; the classes not shown too.
        images: how many.
        total: number of classes, shown or not.
    """

    classes: list[int]
    counts: list[list[int]]
    elsewhere: list[int]
    top1: float
    images: int
    total: int


@dataclass(frozen=True)
class RunPage:
    """What a run's network made of its images, as the page shows it.

    Attributes:
        split: `test`, or `training` where there are no test images.
        bank, queries: how many images were used, and of how many.
        classes: names; None where any of the images has no label.
        sampled, wrong: galleries of queries taken evenly, and of misclassified ones.
        confusion: None without labels or test images.
    """

    split: str
    bank: tuple[int, int]
    queries: tuple[int, int]
    damaged: int
    classes: list[str] | None
    map: FeatureMap
    sampled: list[Gallery]
    wrong: list[Gallery]
    confusion: Confusion | None


def collect_run_page(
    network: Network, dataset: Dataset, *, most: int, method: Method = "auto"
) -> RunPage:
    """Compare test images with training images. Without test images, compare training images.

    Args:
        network, dataset: the run's.
        most: images of each split that are used, evenly spaced.
        method: of the map.

    Raises:
        DataError: a shard cannot be read. Damaged images are left out.
        InputError: the features cannot be written.
        PluginError: the method is not installed.
    """
    train, test = dataset.train, dataset.test or dataset.train
    bank = _embed(network, train, most, "training images")
    queries = bank if test is train else _embed(network, test, most, "test images")
    classes = _class_names(dataset.classes, bank, queries)
    near = _neighbors(bank, queries)
    predicted = None
    if classes is not None and test is not train:
        predicted = vote(near.similarity, bank.labels[near.rows], T)[:, 0]
    picker = _ImagePicker(network.recipe.evaluation.crop, bank, train, queries, test, near, classes)
    wrong = [] if predicted is None else torch.nonzero(predicted != queries.labels)[:, 0].tolist()
    return RunPage(
        split="training" if test is train else "test",
        bank=(len(bank.ids), len(train)),
        queries=(len(queries.ids), len(test)),
        damaged=len({*bank.damaged, *queries.damaged}),
        classes=classes,
        map=_map(network, queries, test, method),
        sampled=picker.galleries(evenly(len(queries.ids), _SAMPLED).tolist()),
        wrong=picker.galleries([wrong[i] for i in evenly(len(wrong), _WRONG)] if wrong else []),
        confusion=None
        if predicted is None or classes is None
        else confuse(predicted, queries.labels, len(classes)),
    )


def _embed(network: Network, shards: ShardSet, most: int, what: str) -> Embedding:
    return network.embed(shards, evenly(len(shards), most), what=what, skip_damaged=True)


@dataclass(frozen=True)
class _Neighbors:
    """The most similar rows of the bank for each query, and cosine similarities, both [Q, K]."""

    similarity: Tensor
    rows: Tensor


def _neighbors(bank: Embedding, queries: Embedding) -> _Neighbors:
    own = int(queries is bank)  # of an image that is its own neighbour there is one more
    similarity, rows = nearest(bank.x, queries.x, min(K + own, len(bank.x)))
    if own:
        columns = without_own(rows, torch.arange(len(rows)))
        similarity, rows = similarity.gather(1, columns), rows.gather(1, columns)
    return _Neighbors(similarity, rows)


def _class_names(
    named: tuple[str, ...] | None, bank: Embedding, queries: Embedding
) -> list[str] | None:
    labels = torch.cat([bank.labels, queries.labels])
    if int(labels.min()) < 0:
        return None
    count = max(len(named or ()), 1 + int(labels.max()))
    names = list(named or ())
    return names + [str(label) for label in range(len(names), count)]


def _map(network: Network, queries: Embedding, shards: ShardSet, method: Method) -> FeatureMap:
    chosen = evenly(len(queries.ids), MAP_POINTS)
    points, name = project(queries.x[chosen].numpy(), method)
    thumbnails = sprite(shards, queries.ids[chosen].tolist(), network.recipe.evaluation.crop)
    return FeatureMap(name, points, queries.labels[chosen].tolist(), thumbnails)


@dataclass(frozen=True)
class _ImagePicker:
    """Makes galleries of queries and their neighbours."""

    crop: float
    bank: Embedding
    bank_set: ShardSet
    queries: Embedding
    query_set: ShardSet
    near: _Neighbors
    classes: list[str] | None

    def galleries(self, places: Sequence[int]) -> list[Gallery]:
        """Galleries of the queries at these positions."""
        return [self._gallery(place) for place in places]

    def _gallery(self, place: int) -> Gallery:
        label = int(self.queries.labels[place])
        query = picture(self.query_set, int(self.queries.ids[place]), self.crop)
        rows = self.near.rows[place, :NEIGHBORS].tolist()
        neighbors = []
        for row, value in zip(rows, self.near.similarity[place].tolist(), strict=False):
            theirs = int(self.bank.labels[row])
            right = None if self.classes is None else theirs == label
            uri = picture(self.bank_set, int(self.bank.ids[row]), self.crop)
            neighbors.append(ImageCard(uri, self._name(theirs), value, right))
        return Gallery(ImageCard(query, self._name(label)), neighbors)

    def _name(self, label: int) -> str:
        return "" if self.classes is None else self.classes[label]


def without_own(ids: Tensor, own: Tensor) -> Tensor:
    """Columns [Q, k] of the neighbours without the query itself, which is in the bank too.

    Args:
        ids: rows of the bank [Q, k + 1], the most similar first.
        own: the query's own row [Q]; where it is not among them, the last is dropped.
    """
    others = ids != own[:, None]
    others[others.all(dim=1), -1] = False
    return others.nonzero()[:, 1].view(len(ids), ids.shape[1] - 1)


def confuse(predicted: Tensor, labels: Tensor, classes: int) -> Confusion:
    """Count predicted classes [Q] against labels [Q]; of many classes the worst are shown.

    Memory grows with the number of classes, not with its square.
    """
    wrong = predicted != labels
    shown = torch.arange(classes)
    if classes > _MOST_CLASSES:
        errors = torch.bincount(torch.cat([labels[wrong], predicted[wrong]]), minlength=classes)
        shown = errors.topk(_MOST_CLASSES).indices.sort().values
    size = len(shown)
    position = torch.full((classes,), -1)
    position[shown] = torch.arange(size)
    rows, columns = position[labels], position[predicted]
    inside, outside = (rows >= 0) & (columns >= 0), (rows >= 0) & (columns < 0)
    cells = torch.bincount(rows[inside] * size + columns[inside], minlength=size * size)
    elsewhere: list[int] = torch.bincount(rows[outside], minlength=size).tolist()
    counts: list[list[int]] = cells.view(size, size).tolist()
    top1 = 1 - float(wrong.sum()) / max(len(labels), 1)
    return Confusion(shown.tolist(), counts, elsewhere, top1, len(labels), classes)
