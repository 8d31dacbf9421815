"""A recipe's data, where it is at hand: its digest, and how large a run would be. No torch here."""

from __future__ import annotations

import hashlib

from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.shards import Dataset
from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe.recipe import Recipe


def data_at_hand(recipe: Recipe) -> Dataset | None:
    """The recipe's data; None where it is not at hand. Raises DataError where it is damaged."""
    try:
        dataset: Dataset = recipe.part("dataset").create(stream=recipe.data.stream)
    except InputError:
        return None
    return dataset


def data_digest(dataset: Dataset) -> str:
    """One hash of the training and the test shards: what stands for the data wherever it is said
    to be the same."""
    digests = [dataset.train.digest, dataset.test.digest if dataset.test else "none"]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16]


def sizes(recipe: Recipe, dataset: Dataset | None = None) -> tuple[int | None, int | None]:
    """(training images, steps an epoch); None for what is not known without the data.

    `dataset` is the data, where it is open already. Raises InputError where the recipe's batch does
    not go with it.
    """
    data, training = recipe.data, recipe.training
    if data.stream:
        return None, data.steps_per_epoch or None
    dataset = dataset or data_at_hand(recipe)
    if dataset is None:
        return None, None
    counts = dataset.train.counts
    plan = SampleOrder(counts, training.seed, training.batch_size, data.lanes, data.window)
    return plan.samples, plan.steps
