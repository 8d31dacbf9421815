"""One evaluation: every protocol on one frozen network, and the report on it."""

from __future__ import annotations

import base64
import dataclasses
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from simsiam_zoo.catalog import Resolved
from simsiam_zoo.data.inspection import why_unmeasurable
from simsiam_zoo.data.shards import Dataset, ShardSet
from simsiam_zoo.errors import InputError, PluginError
from simsiam_zoo.evaluation.augmented import AugmentedViews
from simsiam_zoo.evaluation.frozen_pass import BATCH, FrozenPass, RawPixels
from simsiam_zoo.evaluation.protocol import (
    EvaluationProtocol,
    FeatureSplits,
    Score,
    class_accuracies,
    confusion_matrix,
    grey_once,
    is_collective,
    number_classes,
    refuse_infinite,
    wants_images,
)
from simsiam_zoo.evaluation.store import CachedFeatures
from simsiam_zoo.evaluation.target import EvalTarget
from simsiam_zoo.metrics import RAW
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.naming import data_name
from simsiam_zoo.recipe.source import installed_version
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.device import full_fp32, memory_trouble
from simsiam_zoo.runtime.folders import save_text, unwritable
from simsiam_zoo.runtime.progress import Progress

REPORT_FORMAT = 1
UNTRAINED = "untrained network"
_SOFTWARE = ("simsiam-zoo", "torch", "timm", "torchmetrics", "scikit-learn")


@dataclass(frozen=True)
class Job:
    """One protocol, `name` by its spec, on one network, by its name in the splits."""

    network: str
    name: str
    protocol: EvaluationProtocol


def jobs_of(network: str, protocols: Iterable[Resolved]) -> list[Job]:
    """A job for each protocol of a recipe."""
    return [Job(network, resolved.spec, resolved.create()) for resolved in protocols]


def jobs_beside(network: str, protocols: Iterable[Resolved]) -> list[Job]:
    """The jobs for a network that another one is compared with.

    On features, many epochs are worth their time for the trained network alone; a network that is
    trained anew means nothing without one that began untrained. Raw pixels cannot be trained.
    """
    return [
        job
        for job in jobs_of(network, protocols)
        if not is_collective(job.protocol) or (wants_images(job.protocol) and network != RAW)
    ]


def take_features(
    frozen: FrozenPass, names: Sequence[str], dataset: Dataset, recipe: Recipe
) -> tuple[dict[str, FeatureSplits], list[CachedFeatures], list[int] | None]:
    """The features of every network, each image decoded once for all. Every rank calls it.

    `names` are the networks', the trained one first: it alone is given augmented views. There may
    be more names than networks.

    Returns:
        The splits by name; where they lie on disk; and the label that each class had, where classes
        are counted anew.
    """
    assert dataset.test is not None
    train = frozen.features(dataset.train, "training images", whole=False)
    # A score on fewer test images than there are is another score; a bank may miss one.
    test = frozen.features(dataset.test, f"{dataset.measured_on} images", whole=True)
    data, seed, device = recipe.data, recipe.training.seed, frozen.runtime.device
    augmented = AugmentedViews(frozen, dataset.train, seed, data.lanes, data.window)
    splits, labels = {}, None
    for name, network, (bank, of_bank), (queries, of_queries) in zip(
        names, frozen.networks, train, test, strict=False
    ):
        if isinstance(network.module, RawPixels):
            bank, queries = grey_once(bank, queries)
            one = FeatureSplits(bank, queries, 0, device=device)
        else:
            one = FeatureSplits(
                bank,
                queries,
                0,
                augmented if name == names[0] else None,
                of_bank.folder / "state" / f"{of_bank.key}-{of_queries.key}",
                device,
                augmented.images_of(network, dataset.test),
            )
        splits[name], labels = number_classes(one, dataset.classes)
    return splits, [entry for _, entry in (*train, *test)], labels


def measure(
    jobs: Sequence[Job], splits: Mapping[str, FeatureSplits], progress: Progress | None = None
) -> list[list[Score] | InputError]:
    """Of each job its scores, or why its protocol refused the features. Every rank calls it.

    Every rank takes part in a `collective` protocol; each other job is done by one rank, and the
    scores do not depend on which. `splits` are by the networks' names.
    """
    progress = progress or Progress()
    own = [place for place, job in enumerate(jobs) if not is_collective(job.protocol)]
    share = own[distributed.rank() :: distributed.world_size()]
    progress.begin("protocols", len(share))

    def scores(number: int, place: int) -> list[Score] | InputError:
        progress.advance(number, f"{jobs[place].name} of the {jobs[place].network}")
        return _scores(jobs[place], splits)

    done = distributed.together(lambda: {place: scores(n, place) for n, place in enumerate(share)})
    progress.end()
    found = {n: scores for each in distributed.collect(done) for n, scores in each.items()}
    for place, job in enumerate(jobs):
        if place not in found:
            found[place] = distributed.together(lambda job=job: _scores(job, splits))  # type: ignore[misc]
    return [found[place] for place in range(len(jobs))]


def _scores(job: Job, splits: Mapping[str, FeatureSplits]) -> list[Score] | InputError:
    given = splits[job.network]
    if given.folder is not None:
        given = dataclasses.replace(given, folder=given.folder / job.name.replace("/", "-"))
    try:
        with full_fp32():  # a score does not depend on how a GPU rounds products
            scores = job.protocol(given)
    except InputError as refusal:
        return refusal
    if not isinstance(scores, list) or not all(isinstance(each, Score) for each in scores):
        raise PluginError(f"the protocol {job.name} gave no list of Score")
    return scores


@memory_trouble("the evaluation", "A smaller --batch-size takes less.")
def evaluate(
    target: EvalTarget, *, batch: int = BATCH, progress: Progress | None = None
) -> dict[str, Any]:
    """Take features once, and every score of them: a report. Under torchrun every rank calls it.

    The target's recipe says on which data, by which protocols, and where; `batch` images at once,
    of each process.

    Raises:
        InputError: nothing can be measured, the device cannot do it, or memory does not suffice.
        DataError: images are damaged.
        PluginError: a component cannot be used, or the network changed under evaluation.
    """
    began, recipe = time.monotonic(), target.recipe
    jobs = jobs_of(target.name, recipe.protocols())
    if target.untrained is not None:
        jobs += jobs_beside(UNTRAINED, recipe.protocols())
    dataset = recipe.open_data(exact=True)
    test_images = distributed.together(lambda: check_data(dataset))
    frozen = target.frozen_pass(batch, progress)
    given, entries, labels = take_features(frozen, (target.name, UNTRAINED), dataset, recipe)
    for each in given.values():
        refuse_infinite(each.train, each.test)
    passed = time.monotonic() - began
    splits, names = given[target.name], dataset.classes or labels
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in given}
    for job, found in zip(jobs, measure(jobs, given, progress), strict=True):
        if not isinstance(found, InputError):
            figures[job.network] += [as_dict(x, splits.test.labels, splits.classes) for x in found]
        elif job.network != UNTRAINED:
            raise found
        elif progress is not None:  # the trained network's figures may have taken hours
            progress.say(f"{UNTRAINED}: {job.name} is not measured: {found.what}")
    untrained = {"untrained": figures[UNTRAINED]} if UNTRAINED in figures else {}
    return {
        "format": REPORT_FORMAT,
        "source": target.source,
        "network": target.name,
        "weights": entries[0].facts["weights"],
        "data": {
            "name": data_name(recipe.dataset.name, recipe.dataset.params.get("path")),
            "measured_on": dataset.measured_on,
            "train": dataset.train.digest,
            "test": test_images.digest,
            "train_images": len(splits.train.labels),
            "test_images": len(splits.test.labels),
            "width": splits.train.x.shape[1],
            "classes": splits.classes,
            "class_names": None if names is None else [str(each) for each in names],
        },
        "transform": frozen.transform.describe(),
        "machine": frozen.runtime.describe() | {"world_size": distributed.world_size()},
        "software": {name: installed_version(name) for name in _SOFTWARE},
        "figures": figures[target.name],
        **untrained,
        "seconds": {
            "features": round(passed, 1),
            "protocols": round(time.monotonic() - began - passed, 1),
        },
    }


def check_data(dataset: Dataset) -> ShardSet:
    """The test images. InputError: nothing can be measured, or the splits' classes differ."""
    train, test = dataset.train, dataset.test
    if (reason := why_unmeasurable(dataset)) is not None or test is None:
        raise InputError(f"{reason}, so nothing can be measured", "Give other data with --data.")
    if train.classes and test.classes and train.classes != test.classes:
        raise InputError(
            f"the training images have {len(train.classes)} classes and the test images"
            f" {len(test.classes)}, and they are not the same",
            "Pack both splits with one list of classes.",
        )
    trained, asked = int(train.labels().max()), int(test.labels().max())
    if asked > trained:
        raise InputError(
            f"the test images have labels up to {asked}, the training images up to {trained}:"
            " what is there to be learned is not what is asked",
            "Give training and test images of the same classes.",
        )
    if dataset.classes and trained >= len(dataset.classes):
        raise InputError(
            f"an image has label {trained}, of {len(dataset.classes)} classes",
            "Labels count from 0; pack the data again.",
        )
    return test


def as_dict(score: Score, labels: Tensor, classes: int) -> dict[str, Any]:
    """A score with all that was counted, as a report has it; labels [N] of the test images."""
    row = {**as_row(score), "right": right_images(score)}
    if score.predicted is None:
        return {**row, "per_class": [], "confusion": None}
    matrix = confusion_matrix(score.predicted, labels, classes)
    shares = [None if x is None else round(x, 6) for x in class_accuracies(matrix)]
    return {**row, "per_class": shares, "confusion": matrix.tolist()}


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


def right_images(score: Score) -> str:
    """Which test images were classified right: a bit for each in id order, the first one highest.

    In base64. `studies.found_runs` reads it, to pair the figures of two networks by image.
    """
    return base64.b64encode(np.packbits(score.correct.numpy()).tobytes()).decode()


def new_report_path(run: Path) -> Path:
    """`RUN/evaluations/<n>.json`, n one more than the highest that is there: an empty file, so that
    no other evaluation takes the number. One process at a time of an evaluation calls it."""
    folder = run / "evaluations"
    numbers = [int(path.stem) for path in folder.glob("*.json") if path.stem.isdigit()]
    path = folder / f"{1 + max(numbers, default=0)}.json"
    try:
        folder.mkdir(exist_ok=True)
        path.touch(exist_ok=False)
    except FileExistsError:
        return new_report_path(run)
    except OSError as error:
        raise unwritable(path, error) from None
    return path


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write the report, making the folder. Raises InputError where it cannot be written."""
    with suppress(OSError):  # else the file cannot be written either
        path.parent.mkdir(parents=True, exist_ok=True)
    save_text(path, json.dumps(report, indent=1) + "\n")
