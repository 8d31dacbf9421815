"""One evaluation: every protocol on one frozen network, and the report on it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from simsiam_zoo.catalog import Resolved
from simsiam_zoo.data.shards import Dataset, ShardSet
from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.features import Features, FeatureSplits
from simsiam_zoo.evaluation.frozen_pass import refuse_changed, state_digest
from simsiam_zoo.evaluation.protocol import (
    EvaluationProtocol,
    Score,
    class_accuracies,
    confusion_matrix,
    is_collective,
)
from simsiam_zoo.evaluation.target import EvalTarget
from simsiam_zoo.recipe.source import installed_version
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.device import memory_trouble
from simsiam_zoo.runtime.folders import atomic_write_text
from simsiam_zoo.runtime.progress import Progress

FORMAT = 1
_SOFTWARE = ("simsiam-zoo", "torch", "timm", "torchmetrics", "scikit-learn")


@memory_trouble("the evaluation", "A smaller --batch-size takes less.")
def evaluate(
    target: EvalTarget, *, batch: int = 256, progress: Progress | None = None
) -> dict[str, Any]:
    """Take features once, and every figure of them. Under torchrun every rank calls it.

    Args:
        target: the network; its recipe says on which data, by which protocols, and where.
        batch: images at once, of each process.
        progress: told how far it is.

    Returns:
        The report, plain values; what is in it is in docs/evaluation.md.

    Raises:
        InputError: the data cannot be measured on, the device cannot do what is asked, or memory
            does not suffice.
        DataError: images are damaged.
        PluginError: a component cannot be used, or the network changed under evaluation.
    """
    began, recipe = time.monotonic(), target.recipe
    protocols = [(resolved, resolved.create()) for resolved in recipe.protocols()]
    dataset: Dataset = recipe.part("dataset").create(stream=False)
    classes, test_images = distributed.together(lambda: check_data(dataset))
    frozen = target.frozen_pass(batch, progress)
    before = state_digest(frozen.network)
    train, train_entry = frozen.features(dataset.train, "training images", whole=False)
    test, test_entry = frozen.features(test_images, "test images", whole=True)
    refuse_infinite(train, test)
    passed = time.monotonic() - began
    splits = FeatureSplits(
        train,
        test,
        classes,
        frozen.augmented(dataset.train, recipe.training.seed),
        folder=train_entry.folder / "state" / f"{train_entry.key}-{test_entry.key}",
        device=frozen.runtime.device,
    )
    figures = measured(protocols, splits)
    refuse_changed(frozen.network, before, target.name)
    return {
        "format": FORMAT,
        "source": target.source,
        "network": target.name,
        "weights": before,
        "data": {
            "name": recipe.dataset.name,
            "train": dataset.train.digest,
            "test": test_images.digest,
            "train_images": len(train.labels),
            "test_images": len(test.labels),
            "width": train.x.shape[1],
            "classes": classes,
            "class_names": None if dataset.classes is None else list(dataset.classes),
        },
        "transform": frozen.transform.describe(),
        "machine": frozen.runtime.describe() | {"world_size": distributed.world_size()},
        "software": {name: installed_version(name) for name in _SOFTWARE},
        "figures": [as_dict(score, test.labels, classes) for score in figures],
        "seconds": {
            "features": round(passed, 1),
            "protocols": round(time.monotonic() - began - passed, 1),
        },
    }


def measured(
    protocols: Sequence[tuple[Resolved, EvaluationProtocol]], splits: FeatureSplits
) -> list[Score]:
    """Every protocol's figures; each keeps what it wants to keep in a folder of its own.

    A protocol that works on all ranks says so (`collective`); others are for the first one.
    """
    figures: list[Score] = []
    for resolved, protocol in protocols:
        given = ",".join(f"{key}={value}" for key, value in sorted(resolved.params.items()))
        name = "-".join(filter(None, (resolved.name.replace("/", "-"), given)))
        own = dataclasses.replace(
            splits, folder=None if not splits.folder else splits.folder / name
        )
        if is_collective(protocol):
            figures += protocol(own)
        else:
            figures += distributed.from_main(lambda call=protocol, own=own: call(own))  # type: ignore[misc]
    return figures


def check_data(dataset: Dataset) -> tuple[int, ShardSet]:
    """The number of classes, and the test images, where both splits can be measured on.

    Raises:
        InputError: there are no test images, some image has no label, there is one class only, or
            the classes of the test images are not those of the training images.
    """
    if dataset.test is None:
        raise InputError(
            "there are no test images, so nothing can be measured",
            "Say --data with shards that hold val-*.tar, or set dataset.test in the recipe.",
        )
    labels = {"training": dataset.train.labels(), "test": dataset.test.labels()}
    for name, split in labels.items():
        if missing := int((split < 0).sum()):
            raise InputError(
                f"{missing:,} of the {len(split):,} {name} images have no label, so nothing can be"
                " measured",
                "Give labelled data with --data.",
            )
    train_names, test_names = dataset.train.classes, dataset.test.classes
    if train_names and test_names and train_names != test_names:
        raise InputError(
            f"the training images have {len(train_names)} classes and the test images"
            f" {len(test_names)}, and they are not the same",
            "Pack both splits with one list of classes.",
        )
    highest = {name: int(split.max()) for name, split in labels.items()}
    if highest["test"] > highest["training"]:
        raise InputError(
            f"the test images have labels up to {highest['test']}, the training images up to"
            f" {highest['training']}: what is there to be learned is not what is asked",
            "Give training and test images of the same classes.",
        )
    if len(set(labels["training"].tolist())) < 2:
        raise InputError("the training images are all of one class, so nothing can be measured")
    classes = len(dataset.classes or ()) or 1 + max(highest.values())
    if max(highest.values()) >= classes:
        raise InputError(
            f"an image has label {max(highest.values())}, of {classes} classes",
            "Labels count from 0; pack the data again.",
        )
    return classes, dataset.test


def refuse_infinite(*splits: Features) -> None:
    """Stop where a feature is not finite, before it makes figures.

    Raises:
        InputError: one is not.
    """
    for split in splits:
        for rows in split.chunks(4096):
            if not bool(rows.isfinite().all()):
                raise InputError(
                    "the network gives features that are not finite",
                    "If its weights are, --precision fp32 may help.",
                )


def as_dict(score: Score, labels: Tensor, classes: int) -> dict[str, Any]:
    """A score with all that was counted, as a report has it.

    Args:
        score: of some protocol.
        labels: of the test images, [N].
        classes: how many there are.
    """
    matrix = None
    if score.predicted is not None:
        matrix = confusion_matrix(score.predicted, labels, classes)
    return {
        **as_row(score),
        "per_class": []
        if matrix is None
        else [None if x is None else round(x, 6) for x in class_accuracies(matrix)],
        "confusion": None if matrix is None else matrix.tolist(),
    }


def as_row(score: Score) -> dict[str, Any]:
    """A score as `result.json` has it, and the beginning of what a report has."""
    return {
        "protocol": score.protocol,
        "protocol_version": score.version,
        "top1": round(score.top1, 6),
        "top1_interval": None if score.interval is None else [round(x, 6) for x in score.interval],
        "top5": None if score.top5 is None else round(score.top5, 6),
        "test_images": len(score.correct),
        **score.details,
    }


def new_report_path(run: Path) -> Path:
    """`RUN/evaluations/<n>.json`, n one more than the highest that is there."""
    folder = run / "evaluations"
    numbers = [int(path.stem) for path in folder.glob("*.json") if path.stem.isdigit()]
    return folder / f"{1 + max(numbers, default=0)}.json"


def check_out(path: Path) -> None:
    """Refuse a report's path that cannot be one, before any work is done.

    Raises:
        InputError: it does not end in `.json` (the picture goes beside it), or its folder is
            missing.
    """
    if path.suffix != ".json":
        raise InputError(f"--out {path}: a report is written as .json")
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.parent}", "Make it first.")


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write the report. Raises InputError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, json.dumps(report, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
