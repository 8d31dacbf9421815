"""The parts of a run's page that need its images: map, neighbours, confusions."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from simsiam_zoo.data.decode import Pixels, decode_as
from simsiam_zoo.data.image import center, resize, shown
from simsiam_zoo.data.order import evenly
from simsiam_zoo.data.shards import Dataset, ShardSet
from simsiam_zoo.errors import PluginError
from simsiam_zoo.evaluation.frozen_pass import FrozenPass
from simsiam_zoo.evaluation.knn import nearest, vote
from simsiam_zoo.report.features import Embedding, embed

MAP_POINTS = 2000
NEIGHBORS = 8
K, T = 20, 0.1  # of the kNN that is confused: the verdict's
_MOST_CLASSES = 20
"""A matrix of more has cells that nobody can read: the classes with most errors are shown."""

_SAMPLED, _WRONG = 8, 4  # queries of the gallery
_SIDE, _TILE = 96, 32  # px of an image in the gallery, and of one on the map
_FEWEST = 12  # images: below it, neighbourhoods mean nothing and PCA does

Method = Literal["auto", "umap", "tsne", "pca"]


@dataclass(frozen=True)
class ImageCard:
    """One image with its caption, and of a query the images that are most similar to it.

    `right`: it has the query's class; None without labels.
    """

    uri: str
    label: str
    similarity: float | None = None
    right: bool | None = None
    neighbors: Sequence[ImageCard] = ()


@dataclass(frozen=True)
class FeatureMap:
    """Images on a plane: points [N, 2] within 0 to 1, labels [N], -1 where there is none.

    `sprite`: the images in one, in rows of `columns`, in the points' order, as a data URI.
    """

    method: str
    points: NDArray[np.float64]
    labels: list[int]
    sprite: str
    columns: int


@dataclass(frozen=True)
class Confusion:
    """How often images of one class (row) were taken for another (column).

    `classes`: labels of the rows and columns of `counts`; `elsewhere`: images of each row that were
    taken for a class not shown. `top1` (0 to 1), `images` and `total` are of all classes.
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

    `split`: of the queries, `test` or `validation`, or `training` where there are neither. `bank`
    and `queries`: how many images were used, and of how many. `classes`: None where any image has
    no label. `sampled`, `wrong`: queries taken evenly, and misclassified ones.
    """

    split: str
    bank: tuple[int, int]
    queries: tuple[int, int]
    damaged: int
    classes: list[str] | None
    map: FeatureMap
    sampled: list[ImageCard]
    wrong: list[ImageCard]
    confusion: Confusion | None


def collect_run_page(
    network: FrozenPass, dataset: Dataset, *, most: int, method: Method = "auto"
) -> RunPage:
    """Compare test images with training images, or without test images those with each other.

    At most `most` images of each split are used, evenly spaced; damaged ones are left out.
    DataError: a shard cannot be read. InputError: the features cannot be written. PluginError: the
    method is not installed.
    """

    def some(shards: ShardSet, what: str) -> Embedding:
        return embed(network, shards, evenly(len(shards), most), what=what, skip_damaged=True)

    crop = network.transform.crop
    bank = some(dataset.train, "training images")
    what = f"{dataset.measured_on} images"
    queries = bank if dataset.test is None else some(dataset.test, what)
    classes = _class_names(dataset.classes or (), torch.cat([bank.labels, queries.labels]))
    similarity, rows = _neighbors(bank, queries)

    def card(query: int) -> ImageCard:
        label = int(queries.labels[query])
        found = zip(rows[query, :NEIGHBORS].tolist(), similarity[query].tolist(), strict=False)
        neighbors = []
        for row, value in found:
            theirs = int(bank.labels[row])
            name, right = ("", None) if classes is None else (classes[theirs], theirs == label)
            neighbors.append(ImageCard(_picture(bank, row, crop), name, value, right))
        name = "" if classes is None else classes[label]
        return ImageCard(_picture(queries, query, crop), name, neighbors=neighbors)

    confusion, wrong = None, []
    if classes is not None and queries is not bank:
        predicted = vote(similarity, bank.labels[rows], T)[:, 0]
        confusion = confuse(predicted, queries.labels, len(classes))
        wrong = torch.nonzero(predicted != queries.labels)[:, 0].tolist()
    with network.progress.stage("a map of the features"):
        plane = _map(queries, method, crop)
    return RunPage(
        split="training" if queries is bank else dataset.measured_on,
        bank=(len(bank.ids), len(bank.shards)),
        queries=(len(queries.ids), len(queries.shards)),
        damaged=len({*bank.damaged, *queries.damaged}),
        classes=classes,
        map=plane,
        sampled=[card(query) for query in evenly(len(queries.ids), _SAMPLED).tolist()],
        wrong=[card(wrong[i]) for i in evenly(len(wrong), _WRONG)] if wrong else [],
        confusion=confusion,
    )


def _neighbors(bank: Embedding, queries: Embedding) -> tuple[Tensor, Tensor]:
    """Cosine similarity and row of each query's most similar images of the bank, both [Q, K]."""
    own = int(queries is bank)  # of an image that is its own neighbour there is one more
    similarity, rows = nearest(bank.x, queries.x, min(K + own, len(bank.x)))
    if own:
        columns = without_own(rows, torch.arange(len(rows)))
        similarity, rows = similarity.gather(1, columns), rows.gather(1, columns)
    return similarity, rows


def without_own(ids: Tensor, own: Tensor) -> Tensor:
    """Columns [Q, k] of neighbours `ids` [Q, k + 1] without the query's `own` row [Q].

    Where that is not among them, the last is dropped.
    """
    others = ids != own[:, None]
    others[others.all(dim=1), -1] = False
    return others.nonzero()[:, 1].view(len(ids), ids.shape[1] - 1)


def _class_names(named: Sequence[str], labels: Tensor) -> list[str] | None:
    if int(labels.min()) < 0:
        return None
    return [*named, *(str(label) for label in range(len(named), 1 + int(labels.max())))]


def confuse(predicted: Tensor, labels: Tensor, classes: int) -> Confusion:
    """Count predicted classes [Q] against labels [Q]; of many classes the worst are shown.

    Memory grows with the number of classes, not with its square.
    """
    from sklearn.metrics import confusion_matrix

    wrong = predicted != labels
    images = torch.bincount(labels, minlength=classes)
    shown = torch.arange(classes)
    if classes > _MOST_CLASSES:
        errors = torch.bincount(torch.cat([labels[wrong], predicted[wrong]]), minlength=classes)
        worst = errors * (len(labels) + 1) + images  # of equal ones those with more images
        shown = worst.topk(_MOST_CLASSES).indices.sort().values
    counts = confusion_matrix(labels, predicted, labels=shown)
    elsewhere = images[shown].numpy() - counts.sum(axis=1)
    top1 = 1 - float(wrong.sum()) / len(labels)
    return Confusion(
        shown.tolist(), counts.tolist(), elsewhere.tolist(), top1, len(labels), classes
    )


def _picture(of: Embedding, row: int, crop: float) -> str:
    """The centre crop that evaluation uses, at most `_SIDE` px wide, as a data URI."""
    return data_uri(_view(of.shards, int(of.ids[row]), crop, _SIDE))


def _view(shards: ShardSet, id: int, crop: float, most: int) -> Pixels:
    pixels = shown(decode_as(shards.read(id).image, shards.channels))
    return center(pixels, min(most, *pixels.shape[:2]), crop)


def data_uri(pixels: Pixels) -> str:
    """[H, W, 3] as a data URI."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=90)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _map(queries: Embedding, method: Method, crop: float) -> FeatureMap:
    chosen = evenly(len(queries.ids), MAP_POINTS)
    points, name = project(queries.x[chosen].numpy(), method)
    columns = math.ceil(math.sqrt(len(chosen)))
    rows = -(-len(chosen) // columns)
    sheet: Pixels = np.zeros((rows * _TILE, columns * _TILE, 3), np.uint8)
    for place, id in enumerate(queries.ids[chosen].tolist()):
        top, left = place // columns * _TILE, place % columns * _TILE
        view = resize(_view(queries.shards, id, crop, _TILE), _TILE, _TILE)
        sheet[top : top + _TILE, left : left + _TILE] = view
    return FeatureMap(name, points, queries.labels[chosen].tolist(), data_uri(sheet), columns)


def choose_method(method: Method) -> Method:
    """`auto`: UMAP where it is installed, else t-SNE; PluginError where it is missing but named."""
    installed = find_spec("umap") is not None
    if method == "umap" and not installed:
        raise PluginError(
            "--map umap needs the package umap-learn",
            "Install it with: pip install 'simsiam-zoo[umap]'; or say --map tsne.",
        )
    return ("umap" if installed else "tsne") if method == "auto" else method


def project(x: NDArray[np.floating[Any]], method: Method) -> tuple[NDArray[np.float64], str]:
    """Features [N, D] as positions [N, 2] within 0 to 1, and the method's name.

    Only directions count, as for cosine kNN. The seed is fixed: the same features give the same map
    on the same machine.
    """
    method = choose_method(method)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    directions = x / np.where(norms > 0, norms, 1)
    # Of a point, or of a handful, no neighbourhood can be kept.
    if len(x) < _FEWEST or float(np.ptp(directions, axis=0).max()) < 1e-6:
        method = "pca"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fixed seed's price, of zero variance
        laid = _lay_out(directions, method)
    low, high = laid.min(axis=0), laid.max(axis=0)
    fitted = (laid - (low + high) / 2) / (float((high - low).max()) or 1.0) + 0.5
    return fitted, {"umap": "UMAP", "tsne": "t-SNE", "pca": "PCA"}[method]


def _lay_out(x: NDArray[np.floating[Any]], method: Method) -> NDArray[np.float64]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if method == "umap":
        from umap import UMAP

        neighbors = min(15, len(x) - 1)
        model = UMAP(n_neighbors=neighbors, metric="cosine", random_state=0, n_jobs=1)
        return np.asarray(model.fit_transform(x), np.float64)
    if method == "tsne":
        if min(x.shape) > 50:  # what is left carries the neighbourhoods at a tenth of the time
            x = PCA(50, random_state=0).fit_transform(x)
        model = TSNE(perplexity=min(30.0, (len(x) - 1) / 3), init="pca", random_state=0)
        return np.asarray(model.fit_transform(x), np.float64)
    out = np.zeros((len(x), 2))
    most = min(2, *x.shape)
    out[:, :most] = np.nan_to_num(PCA(most, random_state=0).fit_transform(x))
    return out
