from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from simsiam_zoo.data.batches import LoadedBatch
from simsiam_zoo.model.siamese import Batch
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.training.batches import prefetched, to_device, train_loader
from simsiam_zoo.training.setup import prepare


def test_on_the_cpu_each_batch_is_placed_when_it_is_asked_for(tiny: Callable[..., Recipe]) -> None:
    setup = prepare(tiny())
    order: list[str] = []

    def loaded() -> Iterator[LoadedBatch]:
        for each in train_loader(setup):
            order.append("loaded")
            yield each

    def place(each: LoadedBatch) -> Batch:
        order.append("placed")
        return to_device(setup, each)

    batches = prefetched(loaded(), place, torch.device("cpu"))
    for expected, _ in zip(train_loader(setup), range(3), strict=False):
        each, batch = next(batches)
        order.append("used")
        assert torch.equal(each.ids, expected.ids)
        for a, b in zip(batch.views, to_device(setup, expected).views, strict=True):
            assert torch.equal(a, b)
    assert order == ["loaded", "placed", "used"] * 3
