"""kNN and the grid of linear classifiers on features of ImageNet's width."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from gpu_parts.part import Found, Part
from shared.steps import clock
from simsiam_zoo.catalog import create_component
from simsiam_zoo.evaluation.protocol import Features, FeatureSplits

EPOCHS = 5


def run(part: Part) -> None:
    """The device, and for kNN the CPU beside it."""
    rows, width = part.pick((200_000, 2048), (600, 64))
    classes, queries = part.pick((1000, 10_000), (10, 100))
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, width, generator=generator)

    def features(count: int) -> Features:
        labels = torch.randint(classes, (count,), generator=generator)
        x = torch.randn(count, width, generator=generator)
        return Features(x.add_(centres[labels], alpha=0.1), labels)

    train, test = features(rows), features(queries)

    def measured(spec: str, device: torch.device | str) -> Found:
        protocol: Any = create_component("protocol", spec)
        began = clock(part.device)
        scores = protocol(FeatureSplits(train, test, classes, device=device))
        return {
            "training features": f"{rows:,} x {width:,}",
            "test features": f"{queries:,}",
            "seconds": clock(part.device) - began,
            "top-1": scores[0].top1,
        }

    linear = f"linear:epochs={EPOCHS}"
    part.case(f"kNN, {part.device}", partial(measured, "knn", part.device))
    part.case(f"{linear}, {part.device}", partial(measured, linear, part.device))
    part.case("kNN, cpu", partial(measured, "knn", "cpu"), needs=part.pick(40, 0))
