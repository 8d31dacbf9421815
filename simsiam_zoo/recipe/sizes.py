"""How large a run would be, where its data is at hand. No torch here."""

from __future__ import annotations

from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.shards import Dataset
from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe.recipe import Recipe


def sizes(recipe: Recipe) -> tuple[int | None, int | None]:
    """(training images, steps an epoch); None for what is not known without the data.

    Raises:
        InputError: the data is at hand, and the recipe's batch does not go with it.
    """
    data, training = recipe.data, recipe.training
    if data.stream:
        return None, data.steps_per_epoch or None
    try:
        dataset: Dataset = recipe.part("dataset").create()
    except InputError:
        return None, None
    counts = dataset.train.counts
    plan = SampleOrder(counts, training.seed, training.batch_size, data.lanes, data.window)
    return plan.samples, plan.steps
