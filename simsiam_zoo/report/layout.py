"""Features in two dimensions, to be looked at: distances in such a map are hints, not figures."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.errors import PluginError

Method = Literal["auto", "umap", "tsne", "pca"]
TITLES = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PCA"}
_SEED = 0
_FEWEST = 12  # images: below it, neighbourhoods mean nothing and PCA does


def choose(method: Method) -> Method:
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


def lay_out(x: NDArray[np.floating[Any]], method: Method) -> tuple[NDArray[np.float64], str]:
    """Put features [N, D] on a plane, by their directions: as cosine kNN sees them.

    The seed is fixed: the same features give the same map on the same machine.

    Returns:
        Positions [N, 2], each axis within 0 to 1 with one scale for both; the method's name.
    """
    method = choose(method)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    directions = x / np.where(norms > 0, norms, 1)
    # Of a point, or of a handful, no neighbourhood can be kept.
    if len(x) < _FEWEST or float(np.ptp(directions, axis=0).max()) < 1e-6:
        method = "pca"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fixed seed's price, of zero variance
        laid = _LAYOUTS[method](directions)
    if not np.isfinite(laid).all():
        method, laid = "pca", _pca(directions)
    return _fit(laid), TITLES[method]


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


_LAYOUTS = {"umap": _umap, "tsne": _tsne, "pca": _pca}


def _fit(laid: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = laid.min(axis=0), laid.max(axis=0)
    scale = float((high - low).max()) or 1.0
    fitted: NDArray[np.float64] = (laid - (low + high) / 2) / scale + 0.5
    return fitted
