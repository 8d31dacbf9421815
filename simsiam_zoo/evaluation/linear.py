"""Linear classifiers on cached features: the best of a grid that is trained together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.features import FeatureSplits
from simsiam_zoo.evaluation.linear_fit import (
    Classifiers,
    Pair,
    held_out,
    in_chunks,
    score_classifiers,
    train_together,
)
from simsiam_zoo.evaluation.protocol import RANKS, Score, check_labels, make_score
from simsiam_zoo.runtime.optim import REFERENCE_BATCH

HELD_OUT = 0.1
"""Share of each class's training images that the pair is chosen on."""

_SEED = 0


class LinearProtocol:
    """A linear classifier by SGD on standardised features, its lr and wd chosen from a grid.

    All pairs are trained together on 90% of each class's training images, and the one that is right
    most often on the other 10% is chosen (of equals the one with the lower loss there). It is then
    trained anew on all training images; the test images are predicted once, by that classifier.
    Momentum 0.9, cosine, zero weights at the start; mean and std of the features are those of the
    images trained on. The loss is the mean cross-entropy + wd / 2 |W|^2: the objective of
    scikit-learn's LogisticRegression with C = 1 / (wd N).

    The details hold the grid, with each pair's top-1 and loss on the held-out images, and the
    chosen pair.

    Args:
        lrs: base learning rates, greater than 0; the lr used is base x batch / 256.
        wds: weight decays, 0 or greater.
        epochs: passes over the training features.
        batch: images for each step; None takes the power of two at N / 32 or next below it, from
            64 to 4,096: 64 for 4,000 images, 1,024 for 60,000, 4,096 for ImageNet.
    """

    version = 1

    def __init__(
        self, *, lrs: Sequence[float], wds: Sequence[float], epochs: int, batch: int | None
    ) -> None:
        self.grid = list(itertools.product(dict.fromkeys(lrs), dict.fromkeys(wds)))
        self.epochs, self.batch = epochs, batch

    def __call__(self, splits: FeatureSplits) -> list[Score]:
        """Choose and train on the training images, classify the test images.

        Raises:
            InputError: there are no labels, no class has two images, or every classifier of the
                grid diverged.
        """
        check_labels(splits.train, splits.test, splits.classes)
        n = len(splits.train.labels)
        fit, held = held_out(splits.train.labels, HELD_OUT, _SEED)
        if not len(held):
            raise InputError(
                f"no class has two of the {n} training images, so none can be held out"
                " to choose a learning rate by",
                "Use the protocol logistic, which has nothing to choose.",
            )
        batch = min(self.batch or default_batch(n), n)
        trained = self._train(splits, fit, self.grid, batch)
        top1, loss = score_classifiers(trained, splits.train, held)
        chosen = _best(top1, loss)
        if not bool(loss[chosen].isfinite()):
            raise InputError(
                "the training of every linear classifier of the grid diverged",
                "Give lower learning rates: linear:lrs=0.0001/0.001",
            )
        final = self._train(splits, torch.arange(n), [self.grid[chosen]], batch)
        rows = [
            {"lr": lr, "wd": wd, "top1": round(a, 6), "loss": round(b, 6) if b < 1e6 else None}
            for (lr, wd), a, b in zip(self.grid, top1.tolist(), loss.tolist(), strict=True)
        ]
        lr, wd = self.grid[chosen]
        details: dict[str, Any] = {
            "lr": lr,
            "wd": wd,
            "held_out_images": len(held),
            "held_out_top1": round(float(top1[chosen]), 6),
            "grid": rows,
        }
        name = f"linear (best of {len(self.grid)}, batch={batch}, epochs={self.epochs})"
        predicted = ranked(final, splits)
        return [
            make_score(name, self.version, predicted, splits.test.labels, splits.classes, details)
        ]

    def _train(
        self, splits: FeatureSplits, rows: Tensor, grid: list[tuple[float, float]], batch: int
    ) -> Classifiers:
        pairs = [Pair(lr * batch / REFERENCE_BATCH, wd) for lr, wd in grid]
        return train_together(
            splits.train,
            rows,
            splits.classes,
            pairs,
            epochs=self.epochs,
            batch=batch,
            seed=_SEED,
            device=splits.device,
        )


def default_batch(n: int) -> int:
    """The power of two at n / 32 or next below it, from 64 to 4,096."""
    return min(max(1 << max(0, (n // 32).bit_length() - 1), 64), 4096)


def ranked(classifiers: Classifiers, splits: FeatureSplits) -> Tensor:
    """The first classifier's best classes [N, up to `RANKS`] of the test images, the best first."""
    best = [
        logits[:, 0].sort(dim=1, descending=True, stable=True).indices[:, :RANKS].cpu()
        for logits, _ in in_chunks(classifiers, splits.test)
    ]
    return torch.cat(best)


def _best(top1: Tensor, loss: Tensor) -> int:
    """The most often right; of these the one with the lowest loss; of these the first."""
    pairs = zip(top1.tolist(), loss.tolist(), strict=True)
    order = [(-accuracy, cost, at) for at, (accuracy, cost) in enumerate(pairs)]
    # one whose logits were finite for some images only has an infinite loss, and is out
    finite = [each for each in order if each[1] < float("inf")]
    return min(finite or order)[2]
