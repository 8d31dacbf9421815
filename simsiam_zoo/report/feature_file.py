"""Features in a file that other tools read: `.npz` (NumPy, no pickle) or `.parquet` (Arrow)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.errors import InputError, PluginError
from simsiam_zoo.report.features import Embedding
from simsiam_zoo.runtime.folders import atomic_write

FORMAT, VERSION = "simsiam-zoo features", 1


@dataclass(frozen=True)
class Table:
    """One row for each image, of one split or several.

    Attributes:
        features: [N, D] float32.
        labels: [N] int64, -1 where there is none.
        ids: dense id within the split, [N] int64.
        split: `train` or `test`, [N].
        shard: the shard's file name or address, [N].
        key: the sample's key in its shard, [N].
        classes: names of the labels 0, 1, ...; empty where they are not known.
        metadata: what was done; it can be written as JSON.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]
    split: NDArray[np.str_]
    shard: NDArray[np.str_]
    key: NDArray[np.str_]
    classes: tuple[str, ...]
    metadata: dict[str, Any]


def make_table(
    parts: Sequence[tuple[str, ShardSet, Embedding]],
    classes: tuple[str, ...] | None,
    metadata: dict[str, Any],
) -> Table:
    """Put splits (name, images, features) under each other."""
    rows = [
        (name, *_place(shards, int(id)))
        for name, shards, embedding in parts
        for id in embedding.ids.tolist()
    ]
    embeddings = [embedding for _, _, embedding in parts]
    return Table(
        np.concatenate([e.x.numpy() for e in embeddings]),
        np.concatenate([e.labels.numpy() for e in embeddings]),
        np.concatenate([e.ids.numpy() for e in embeddings]),
        np.array([row[0] for row in rows], np.str_),
        np.array([row[1] for row in rows], np.str_),
        np.array([row[2] for row in rows], np.str_),
        classes or (),
        {"format": FORMAT, "version": VERSION, **metadata},
    )


def check_out(path: Path) -> None:
    """Refuse a file that could not be written, before any work is done.

    Raises:
        InputError: its ending is neither `.npz` nor `.parquet`, or its folder is missing.
        PluginError: Parquet is asked for and pyarrow is not installed.
    """
    if path.suffix not in {".npz", ".parquet"}:
        raise InputError(f"--out {path}: features are written as .npz or .parquet")
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.parent}", "Make it first.")
    if path.suffix == ".parquet":
        _pyarrow()


def write_table(path: Path, table: Table) -> None:
    """Write the file, whole or not at all.

    Raises:
        InputError: it cannot be written, or as for `check_out`.
        PluginError: as for `check_out`.
    """
    check_out(path)
    write = _write_npz if path.suffix == ".npz" else _write_parquet
    try:
        with atomic_write(path) as file:
            write(file, table)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None


def _place(shards: ShardSet, id: int) -> tuple[str, str]:
    """The shard's name without its folder, and the sample's key."""
    where = shards.shards[shards.locate(id)[0]].where
    return where.rpartition("/")[2], shards.name(id).removeprefix(f"{where}: ")


def _write_npz(file: BinaryIO, table: Table) -> None:
    np.savez(
        file,
        allow_pickle=False,
        features=table.features,
        labels=table.labels,
        ids=table.ids,
        split=table.split,
        shard=table.shard,
        key=table.key,
        classes=np.array(table.classes, np.str_),
        metadata=np.array(json.dumps(table.metadata)),
    )


def _write_parquet(file: BinaryIO, table: Table) -> None:
    pa, parquet = _pyarrow()
    width = table.features.shape[1]
    flat = pa.array(table.features.reshape(-1))
    columns = {
        "split": pa.array(table.split.tolist()).dictionary_encode(),
        "shard": pa.array(table.shard.tolist()).dictionary_encode(),
        "key": pa.array(table.key.tolist()),
        "id": pa.array(table.ids),
        "label": pa.array(table.labels),
    }
    if table.classes:
        names = [table.classes[label] if label >= 0 else None for label in table.labels.tolist()]
        columns["class"] = pa.array(names, pa.string()).dictionary_encode()
    columns["features"] = pa.FixedSizeListArray.from_arrays(flat, width)
    document = table.metadata | {"classes": table.classes}
    arrow = pa.table(columns).replace_schema_metadata({"simsiam_zoo": json.dumps(document)})
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
