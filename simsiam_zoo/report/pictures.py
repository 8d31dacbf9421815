"""The pictures of a run's page: images as data URIs, and features laid out on a plane."""

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
from numpy.typing import NDArray
from PIL import Image

from simsiam_zoo.data.decode import Pixels, decode
from simsiam_zoo.data.image import center, resize
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.errors import PluginError

_QUALITY = 80


@dataclass(frozen=True)
class Sprite:
    """Many small images in one image, row by row.

    Attributes:
        uri: `data:image/...`.
        tile: side of one in pixels.
        columns: in a row.
        rows: of them.
    """

    uri: str
    tile: int
    columns: int
    rows: int


def picture(shards: ShardSet, id: int, crop: float, most: int = 96) -> str:
    """The centre crop that evaluation uses, at most `most` px wide, as a data URI.

    Raises:
        DataError: the image is damaged.
    """
    return data_uri(_view(shards, id, crop, most))


def sprite(shards: ShardSet, ids: Sequence[int], crop: float, tile: int = 32) -> Sprite:
    """Put the images into one, row by row.

    Raises:
        DataError: an image is damaged.
    """
    columns = max(1, math.isqrt(max(len(ids) - 1, 0)) + 1)
    rows = max(1, -(-len(ids) // columns))
    sheet: Pixels = np.zeros((rows * tile, columns * tile, 3), np.uint8)
    for place, id in enumerate(ids):
        top, left = place // columns * tile, place % columns * tile
        view = resize(_view(shards, id, crop, tile), tile, tile)
        sheet[top : top + tile, left : left + tile] = view
    return Sprite(data_uri(sheet), tile, columns, rows)


def data_uri(pixels: Pixels) -> str:
    """[H, W, 3] as a data URI: PNG or WebP, whichever is smaller."""
    image = Image.fromarray(pixels)
    files = []
    for kind, options in (("PNG", {"optimize": True}), ("WEBP", {"quality": _QUALITY})):
        file = io.BytesIO()
        image.save(file, kind, **options)
        files.append((len(file.getvalue()), kind.lower(), file.getvalue()))
    _, kind, content = min(files)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _view(shards: ShardSet, id: int, crop: float, most: int) -> Pixels:
    pixels = decode(shards.read(id).image)
    return center(pixels, min(most, *pixels.shape[:2]), crop)


Method = Literal["auto", "umap", "tsne", "pca"]
_TITLES = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PCA"}
_SEED = 0
_FEWEST = 12  # images: below it, neighbourhoods mean nothing and PCA does


def choose_method(method: Method) -> Method:
    """`auto`: UMAP where it is installed, else t-SNE.

    Raises:
        PluginError: UMAP is asked for by name and is not installed.
    """
    installed = find_spec("umap") is not None
    if method == "umap" and not installed:
        raise PluginError(
            "--map umap needs the package umap-learn",
            "Install it with: pip install 'simsiam-zoo[umap]'; or say --map tsne.",
        )
    return ("umap" if installed else "tsne") if method == "auto" else method


def project(x: NDArray[np.floating[Any]], method: Method) -> tuple[NDArray[np.float64], str]:
    """Project features [N, D] to a plane. Only directions count, as for cosine kNN.

    The seed is fixed: the same features give the same map on the same machine.

    Returns:
        Positions [N, 2], each axis within 0 to 1 with one scale for both; the method's name.
    """
    method = choose_method(method)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    directions = x / np.where(norms > 0, norms, 1)
    # Of a point, or of a handful, no neighbourhood can be kept.
    if len(x) < _FEWEST or float(np.ptp(directions, axis=0).max()) < 1e-6:
        method = "pca"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fixed seed's price, of zero variance
        laid = _PROJECTIONS[method](directions)
    if not np.isfinite(laid).all():
        method, laid = "pca", _pca(directions)
    return _scaled(laid), _TITLES[method]


def _umap(x: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    from umap import UMAP

    neighbors = min(15, len(x) - 1)
    model = UMAP(n_neighbors=neighbors, metric="cosine", random_state=_SEED, n_jobs=1)
    return np.asarray(model.fit_transform(x), np.float64)


def _tsne(x: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if min(x.shape) > 50:  # what is left carries the neighbourhoods at a tenth of the time
        x = PCA(50, random_state=_SEED).fit_transform(x)
    perplexity = min(30.0, (len(x) - 1) / 3)
    model = TSNE(perplexity=perplexity, init="pca", random_state=_SEED)
    return np.asarray(model.fit_transform(x), np.float64)


def _pca(x: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    from sklearn.decomposition import PCA

    out = np.zeros((len(x), 2))
    most = min(2, *x.shape)
    found = PCA(most, random_state=_SEED).fit_transform(x)
    out[:, :most] = np.nan_to_num(found)
    return out


_PROJECTIONS = {"umap": _umap, "tsne": _tsne, "pca": _pca}


def _scaled(laid: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = laid.min(axis=0), laid.max(axis=0)
    scale = float((high - low).max()) or 1.0
    fitted: NDArray[np.float64] = (laid - (low + high) / 2) / scale + 0.5
    return fitted
