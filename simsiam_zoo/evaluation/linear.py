"""Linear classifiers on cached features: a grid of them trained together, the best one anew.

G classifiers of C classes are one matrix [D, G C]: a batch is read, standardised and multiplied
once, and none has a part in another's gradient. The loss of each is mean cross-entropy +
wd / 2 |W|^2 without the bias: scikit-learn's LogisticRegression with C = 1 / (wd N).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from simsiam_zoo.data.order import derive_key, keyed_order
from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.protocol import (
    Features,
    FeatureSplits,
    Score,
    best_classes,
    check_labels,
    make_score,
    of_each_class,
)
from simsiam_zoo.runtime.optim import REFERENCE_BATCH, Schedule

HELD_OUT = 0.1
"""Share of each class's training images that the pair is chosen on."""

MOMENTUM = 0.9
_SEED = 0
_ORDER = 1  # what a key is drawn for
_ROWS = 4096  # that are read at once where nothing is trained


class LinearProtocol:
    """A linear classifier by SGD on standardised features, its lr and wd chosen from a grid.

    All pairs are trained together on 90% of each class's training images; the one that is right
    most often on the other 10% (of equals that of lower loss) is trained anew on all of them.
    Momentum 0.9, cosine, zero weights at the start; mean and std of the features are those of the
    images trained on. The details hold each pair's top-1 and loss on the held-out images.

    Args:
        lrs: base learning rates, greater than 0; the lr used is base x batch / 256.
        wds: weight decays, 0 or greater.
        epochs: passes over the training features.
        batch: images for each step; None takes `default_batch`, and is `auto` in the figure's name,
            so that figures on data of another size have the same one.
    """

    version = 1

    def __init__(
        self, *, lrs: Sequence[float], wds: Sequence[float], epochs: int, batch: int | None
    ) -> None:
        self.grid = list(itertools.product(dict.fromkeys(lrs), dict.fromkeys(wds)))
        self.epochs, self.batch = epochs, batch

    def __call__(self, splits: FeatureSplits) -> list[Score]:
        """Choose and train on the training images, classify the test images.

        InputError: no labels, no class with two images, or all of the grid diverged.
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
        chosen = min(range(len(self.grid)), key=lambda at: (loss[at].isinf(), -top1[at], loss[at]))
        if bool(loss[chosen].isinf()):
            raise InputError(
                "the training of every linear classifier of the grid diverged",
                "Give lower learning rates: linear:lrs=0.0001/0.001",
            )
        final = self._train(splits, torch.arange(n), [self.grid[chosen]], batch)
        lr, wd = self.grid[chosen]
        details = {
            "lr": lr,
            "wd": wd,
            "batch": batch,
            "held_out_images": len(held),
            "held_out_top1": round(float(top1[chosen]), 6),
            "grid": [
                {"lr": lr, "wd": wd, "top1": round(a, 6), "loss": round(b, 6) if b < 1e6 else None}
                for (lr, wd), a, b in zip(self.grid, top1.tolist(), loss.tolist(), strict=True)
            ],
        }
        stated = "auto" if self.batch is None else batch
        name = f"linear (best of {len(self.grid)}, batch={stated}, epochs={self.epochs})"
        every = torch.arange(len(splits.test.labels))
        ranked = torch.cat(
            [best_classes(z[:, 0]) for z, _ in predictions(final, splits.test, every)]
        )
        return [make_score(name, self.version, ranked, splits.test.labels, splits.classes, details)]

    def _train(
        self, splits: FeatureSplits, rows: Tensor, grid: list[tuple[float, float]], batch: int
    ) -> Classifiers:
        return train_together(
            splits.train,
            rows,
            splits.classes,
            [(lr * batch / REFERENCE_BATCH, wd) for lr, wd in grid],
            epochs=self.epochs,
            batch=batch,
            seed=_SEED,
            device=splits.device,
        )


def default_batch(n: int) -> int:
    """The power of two at n / 32 or next below it, from 64 (4,000 images) to 4,096 (ImageNet)."""
    return min(max(1 << max(0, (n // 32).bit_length() - 1), 64), 4096)


def held_out(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split rows by class: (to fit, held out), each ascending int64.

    Of each class that has two rows or more, `share` of them is held out, but at least one and never
    all; which ones is drawn by a hash of the seed.
    """

    def quota(count: int) -> int:
        return min(max(round(share * count), 1), count - 1)

    held = of_each_class(labels, derive_key(seed), quota)
    fit = torch.ones(len(labels), dtype=torch.bool)
    fit[held] = False
    return fit.nonzero()[:, 0], held


@dataclass(frozen=True)
class Classifiers:
    """G linear classifiers, weight [D, G, C] and bias [G, C], of standardised features.

    `mean` and `std`, each [D] float64, are those of the features that they were trained on.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor

    def logits(self, x: Tensor) -> Tensor:
        """x [n, D], as it was extracted → [n, G, C]."""
        x = standardise(x, self.mean, self.std)
        flat = torch.addmm(self.bias.flatten(), x, self.weight.flatten(1))
        return flat.view(len(x), *self.bias.shape)


def standardise(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(x - mean) / std, [n, D], in x's precision."""
    return (x - mean.to(x)) / std.to(x)


def measure_scale(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) std of some rows of x [N, D], each [D] float64; std is 1 for a constant."""
    parts = torch.split(rows, _ROWS)
    zero = torch.zeros(x.shape[1], dtype=torch.float64)
    mean = sum((x[part].double().sum(dim=0) for part in parts), zero) / len(rows)
    squares = sum(((x[part].double() - mean).square().sum(dim=0) for part in parts), zero)
    std = (squares / len(rows)).sqrt()
    # Of a constant nothing but rounding is left, which must not be blown up.
    constant = std <= mean.abs() * torch.finfo(torch.float32).eps
    return mean, std.masked_fill(constant, 1.0)


def train_together(
    features: Features,
    rows: Tensor,
    classes: int,
    grid: Sequence[tuple[float, float]],
    *,
    epochs: int,
    batch: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Classifiers:
    """Train a classifier for each (peak lr, wd), by SGD with momentum and a cosine from zero.

    An epoch is every row once, in an order drawn by a hash of (seed, epoch); its last batch may be
    smaller. Computed in the features' precision, float32 at least.

    Args:
        features: x may be memory-mapped; a batch of it is read at a time.
        rows: [n] int64, what to train on.
        classes: C.
        grid: G pairs; wd is per image, as the loss is a mean.
        epochs, batch: passes over the rows, and rows for each step.
    """
    mean, std = measure_scale(features.x, rows)
    dtype = torch.promote_types(features.x.dtype, torch.float32)
    zeros = functools.partial(torch.zeros, dtype=dtype, device=device)
    width, columns = features.x.shape[1], len(grid) * classes  # classifier by classifier
    weight, weight_velocity = zeros(width, columns), zeros(width, columns)
    bias, bias_velocity = zeros(columns), zeros(columns)
    settings = torch.tensor(grid, dtype=dtype, device=device).repeat_interleave(classes, dim=0)
    lr, wd = settings.unbind(dim=1)
    steps = -(-len(rows) // batch)
    schedule = Schedule(epochs * steps)
    for step in range(epochs * steps):
        epoch, place = divmod(step, steps)
        if place == 0:
            key = derive_key(seed, _ORDER, epoch)
            order = torch.from_numpy(keyed_order(rows.numpy(), key))
        # Sorted, so that a memory map is read from front to back; the batch is the same.
        chosen = rows[order[place * batch : (place + 1) * batch]].sort().values
        x, labels = _read(features, chosen, weight)
        x = standardise(x, mean, std)
        # The gradient of the mean cross-entropy in closed form: (softmax - one-hot) / n.
        error = torch.addmm(bias, x, weight).view(len(x), -1, classes).softmax(dim=2)
        error[torch.arange(len(x), device=device), :, labels] -= 1
        error = error.flatten(1).div_(len(x))
        weight_gradient = (x.T @ error).addcmul_(weight, wd)
        factor = schedule.factor("cosine", step)
        for value, velocity, gradient in (
            (weight, weight_velocity, weight_gradient),
            (bias, bias_velocity, error.sum(dim=0)),
        ):  # as torch's SGD
            velocity.mul_(MOMENTUM).add_(gradient)
            value.addcmul_(velocity, lr, value=-factor)
    shape = len(grid), classes
    return Classifiers(weight.view(-1, *shape), bias.view(shape), mean, std)


def _read(features: Features, rows: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Some rows of x, with the type and the device of `like`, and their labels."""
    return features.x[rows].to(like), features.labels[rows].to(like.device)


def predictions(
    classifiers: Classifiers, features: Features, rows: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits [n, G, C] and labels [n], a few rows at a time."""
    for chosen in torch.split(rows, _ROWS):
        x, labels = _read(features, chosen, classifiers.weight)
        yield classifiers.logits(x), labels


def score_classifiers(
    classifiers: Classifiers, features: Features, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Each classifier's top-1 accuracy and mean cross-entropy on rows, [G] float64 on the CPU.

    Where a classifier's logits are not finite, the accuracy is 0 and the loss infinite.
    """
    right = torch.zeros(len(classifiers.bias), dtype=torch.float64)
    loss = torch.zeros_like(right)
    for logits, labels in predictions(classifiers, features, rows):
        finite = logits.isfinite().all(dim=2)
        hits = (logits.argmax(dim=2) == labels[:, None]) & finite
        right += hits.sum(dim=0).cpu()
        truth = labels[:, None].expand(-1, logits.shape[1])
        losses = F.cross_entropy(logits.transpose(1, 2), truth, reduction="none")
        loss += losses.masked_fill(~finite, torch.inf).sum(dim=0, dtype=torch.float64).cpu()
    return right / len(rows), loss / len(rows)
