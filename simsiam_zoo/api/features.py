"""A run's features, as a page to look at and as numbers: `look`, `embed`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from simsiam_zoo.api.given import RunLike, data_settings, opened
from simsiam_zoo.api.results import Page
from simsiam_zoo.errors import InputError, ZooError

if TYPE_CHECKING:
    from simsiam_zoo.report.features import Embedding


def look(
    run: RunLike,
    out: Path | str | None = None,
    *,
    data: Path | str | None = None,
    images: int = 10_000,
    method: Literal["auto", "umap", "tsne", "pca"] = "auto",
    device: str | None = None,
    quiet: bool = False,
) -> Page:
    """Write a run as one HTML page that opens offline: `simsiam-zoo look`.

    Args:
        run: complete or not.
        out: the page; by default look.html in the run's folder.
        data: other data than the run's own.
        images: most images of each split that are looked at.
        method: how features are laid out; `auto` is umap where that is installed, else tsne.
        device: where features are computed.
        quiet: show no progress.

    Returns:
        The page; its `notes` say why it has no images, where the run's own data are not at hand.

    Raises:
        InputError: there is no such run, or the page cannot be written.
        PluginError: the method is not installed.
        DataError: the data or weights that were asked for are damaged.
    """
    found = opened(run, device)
    from simsiam_zoo.report.collect import choose_method, collect_run_page
    from simsiam_zoo.report.features import open_network, open_run_data
    from simsiam_zoo.report.run_page import render_run
    from simsiam_zoo.runtime.folders import check_out, save_text
    from simsiam_zoo.runtime.progress import open_progress

    path = Path(out) if out else found.folder / "look.html"
    check_out(path)
    choose_method(method)  # a missing package is told before the work, not after it
    sight, notes = None, []
    try:
        with open_progress(quiet) as progress:
            network = open_network(found, "backbone", device, progress)
            dataset = open_run_data(found, None if data is None else data_settings(data))
            sight = collect_run_page(network, dataset, most=images, method=method)
    except ZooError as error:
        if data is not None or device is not None:
            raise
        notes.append(error)
    told = [f"The images could not be looked at: {error.what}" for error in notes]
    save_text(path, render_run(found, sight, told))
    return Page(path, tuple(f"without images: {error}" for error in notes))


@dataclass(frozen=True)
class Features:
    """The features of a data set's images by split: `splits["train"].x` is [N, D] float32.

    `classes`: names of the labels; `metadata`: what they were computed with; `path`: the file that
    they were written to, if they were.
    """

    splits: dict[str, Embedding] = field(repr=False)
    classes: tuple[str, ...]
    metadata: dict[str, Any] = field(repr=False)
    path: Path | None = None

    @property
    def damaged(self) -> list[str]:
        """The images that were left out."""
        return [name for each in self.splits.values() for name in each.damaged]


def embed(
    run: RunLike,
    out: Path | str | None = None,
    *,
    data: Path | str | None = None,
    of: Literal["backbone", "z", "p"] = "backbone",
    split: Literal["all", "train", "test", "validation"] = "all",
    skip_damaged: bool = False,
    device: str | None = None,
    quiet: bool = False,
) -> Features:
    """Compute the features that a run's frozen network gives every image: `simsiam-zoo embed`.

    Args:
        run: a run, or its folder.
        out: a file .npz or .parquet; by default none is written.
        data: other data than the run's own. Images need no labels.
        of: the backbone's output, the projector's z or the predictor's p.
        split: which images.
        skip_damaged: leave damaged images out in place of DataError.
        device: where features are computed.
        quiet: show no progress.

    Raises:
        InputError: there are no such run, data or images, or the file cannot be written.
        PluginError: .parquet without pyarrow.
        DataError: an image, a shard or the weights are damaged.
    """
    found = opened(run, device)
    from simsiam_zoo.report import features
    from simsiam_zoo.runtime.progress import open_progress

    path = None if out is None else Path(out)
    if path is not None:
        features.check_feature_path(path)
    dataset = features.open_run_data(found, None if data is None else data_settings(data))
    both = {"train": dataset.train, dataset.measured_on: dataset.test}
    sets = {n: s for n, s in both.items() if s is not None and split in ("all", n)}
    if not sets:
        raise InputError(f"there are no {split} images in this data", "Leave out --split.")
    with open_progress(quiet) as progress:
        network = features.open_network(found, of, device, progress)
        splits = {
            name: features.embed(network, s, what=f"{name} images", skip_damaged=skip_damaged)
            for name, s in sets.items()
        }
    metadata = {
        "run": found.lock.get("identity"),
        "of": of,
        "backbone": found.recipe.part("backbone").id,
        **features.describe(network),
        "data": {name: shards.digest for name, shards in sets.items()},
    }
    if path is not None:
        features.write_features(path, [*splits.items()], dataset.classes or (), metadata)
    return Features(splits, dataset.classes or (), metadata, path)
