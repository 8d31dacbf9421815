"""A run's frozen network applied to images, and the features in a file that other tools read:
`.npz` (NumPy, no pickle) or `.parquet` (Arrow)."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from simsiam_zoo.catalog import Text
from simsiam_zoo.data.shards import Dataset, ShardSet
from simsiam_zoo.errors import InputError, PluginError
from simsiam_zoo.evaluation.frozen_pass import FrozenPass, state_digest
from simsiam_zoo.evaluation.target import open_target
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.folders import atomic_write, check_out, unwritable
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.run import Run

Output = Literal["backbone", "z", "p"]
_PARTS_BEFORE: dict[str, tuple[str, ...]] = {
    "z": ("backbone", "projector"),
    "p": ("backbone", "projector", "predictor"),
}
"""What an image passes through on the way to each output but the backbone's."""


@dataclass(frozen=True)
class Embedding:
    """Features of images of one split, in the order of their ids.

    x is [N, D] float32, mapped into memory; dense ids and labels are [N] int64, a label is -1 where
    there is none. `damaged`: names of images that were left out.
    """

    shards: ShardSet
    x: Tensor
    ids: Tensor
    labels: Tensor
    damaged: tuple[str, ...] = ()


def open_network(
    run: Run,
    of: Output = "backbone",
    device: str | None = None,
    progress: Progress | None = None,
) -> FrozenPass:
    """A run's frozen network, opened as `simsiam-zoo evaluate` does it, with its features on disk.

    `of`: `backbone`, what is evaluated; `z`, after the projector; `p`, after the predictor. Errors
    as for `Run.model`; InputError too where there is no such device.
    """
    settings = {}
    if device is not None:  # with the arithmetic that it does best
        settings = {"training.device": Text(device), "training.precision": "auto"}
    subject = open_target(str(run.folder), settings)
    if of != "backbone":
        parts = OrderedDict((name, getattr(run.model, name)) for name in _PARTS_BEFORE[of])
        subject = replace(subject, name=of, backbone=nn.Sequential(parts).eval())
    try:
        return subject.frozen_pass(progress=progress)
    except InputError as error:
        if device is None:
            raise InputError(error.what, "Say --device cpu.") from None
        raise


def describe(network: FrozenPass) -> dict[str, Any]:
    """The digest of all the weights, the transform and the arithmetic, as JSON has them."""
    runtime = network.runtime
    transform = {"view": "centre", **asdict(network.transform)}
    transform |= {"precision": runtime.precision, "device": runtime.device.type}
    return {"weights_sha256": state_digest(network.networks[0].module), "transform": transform}


def embed(
    network: FrozenPass,
    shards: ShardSet,
    ids: NDArray[np.int64] | None = None,
    *,
    what: str = "images",
    skip_damaged: bool = False,
) -> Embedding:
    """Features of centre views of the images `ids`, growing; None for all. No labels are needed.

    DataError: an image (unless they are skipped) or a shard is damaged. InputError: the features
    cannot be written.
    """
    ((found, _),) = network.features(shards, what, whole=not skip_damaged, ids=ids)
    assert found.ids is not None  # a pass always gives them
    wanted = np.arange(len(shards)) if ids is None else ids
    left_out = np.setdiff1d(wanted, found.ids.numpy()).tolist()
    damaged = tuple(shards.name(id) for id in left_out)
    return Embedding(shards, found.x, found.ids, found.labels, damaged)


def open_run_data(run: Run, data: Mapping[str, object] | None = None) -> Dataset:
    """The run's data set, or the one that these settings of the recipe name; readable by id.

    InputError: it is not there. DataError: it is damaged.
    """
    recipe = run.recipe
    if data is not None:
        settings = {**data, "data.stream": False, "data.steps_per_epoch": 0}
        recipe = Recipe.of_run(run.folder / "recipe.toml", settings)
    return recipe.open_data(exact=True)


def check_feature_path(path: Path) -> None:
    """Refuse what cannot be written: InputError; PluginError: Parquet without pyarrow."""
    check_out(path, "features are", ".npz", ".parquet")
    if path.suffix == ".parquet":
        _pyarrow()


def write_features(
    path: Path,
    splits: Sequence[tuple[str, Embedding]],
    classes: Sequence[str],
    metadata: dict[str, Any],
) -> None:
    """Write a file with a row for each image, whole or not at all; docs/seeing.md has its columns.

    `splits` are pairs (name, features); `classes` names of the labels 0, 1, ..., empty where they
    are not known; `metadata` can be written as JSON. InputError where the file cannot be written.
    """
    rows = [
        (name, *_location(each.shards, id)) for name, each in splits for id in each.ids.tolist()
    ]
    split, shard, key = (np.array(column, np.str_) for column in zip(*rows, strict=True))
    columns = {
        "features": np.concatenate([each.x.numpy() for _, each in splits]),
        "labels": np.concatenate([each.labels.numpy() for _, each in splits]),
        "ids": np.concatenate([each.ids.numpy() for _, each in splits]),
        "split": split,
        "shard": shard,
        "key": key,
    }
    metadata = {"format": "simsiam-zoo features", "version": 1, **metadata}
    try:
        with atomic_write(path) as file:
            if path.suffix == ".parquet":
                _write_parquet(file, columns, list(classes), metadata)
            else:
                names, about = np.array(classes, np.str_), np.array(json.dumps(metadata))
                np.savez(file, allow_pickle=False, **columns, classes=names, metadata=about)
    except OSError as error:
        raise unwritable(path, error) from None


def _location(shards: ShardSet, id: int) -> tuple[str, str]:
    """The shard's name without its folder, and the sample's key."""
    where = shards.shards[shards.locate(id)[0]].where
    return where.rpartition("/")[2], shards.name(id).removeprefix(f"{where}: ")


def _write_parquet(
    file: BinaryIO, found: dict[str, NDArray[Any]], classes: list[str], metadata: dict[str, Any]
) -> None:
    pa, parquet = _pyarrow()
    columns = {
        "split": pa.array(found["split"].tolist()).dictionary_encode(),
        "shard": pa.array(found["shard"].tolist()).dictionary_encode(),
        "key": pa.array(found["key"].tolist()),
        "id": pa.array(found["ids"]),
        "label": pa.array(found["labels"]),
    }
    if classes:
        names = [classes[label] if label >= 0 else None for label in found["labels"].tolist()]
        columns["class"] = pa.array(names, pa.string()).dictionary_encode()
    flat, width = pa.array(found["features"].reshape(-1)), found["features"].shape[1]
    columns["features"] = pa.FixedSizeListArray.from_arrays(flat, width)
    document = json.dumps(metadata | {"classes": classes})
    arrow = pa.table(columns).replace_schema_metadata({"simsiam_zoo": document})
    parquet.write_table(arrow, file)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise PluginError(
            ".parquet needs the package pyarrow",
            "Install it with: pip install 'simsiam-zoo[parquet]'; or write .npz.",
        ) from None
    return pyarrow, parquet
