"""Many linear classifiers on the same features, trained together: one pass serves them all.

G classifiers of C classes are one matrix [D, G C]: a batch is read, standardised and multiplied
once. The loss is summed over them, so none has a part in another's gradient. For each of them it is

    mean cross-entropy + wd / 2 |W|^2

with no penalty on the bias: scikit-learn's LogisticRegression with C = 1 / (wd N).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from simsiam_zoo.data.order import derive_key, keyed_order
from simsiam_zoo.evaluation.features import Features
from simsiam_zoo.runtime.optim import Schedule

MOMENTUM = 0.9

_ORDER = 1  # what a key is drawn for
_ROWS = 4096  # that are read at once where nothing is trained
_LOGITS = 2**25  # numbers at once: 128 MB
_WEIGHTS = 2**27  # numbers in one matrix of classifiers: 512 MB, and as much for two buffers each


@dataclass(frozen=True)
class Pair:
    """What tells one classifier from another.

    Args:
        lr: the peak of its cosine.
        wd: l2 penalty; per image, as the loss is a mean.
    """

    lr: float
    wd: float


@dataclass(frozen=True)
class Scale:
    """Standardises features: (x - mean) / std, each [D] float64; std is 1 for a constant."""

    mean: Tensor
    std: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """x [n, D] standardised."""
        return (x - self.mean.to(x)) / self.std.to(x)


@dataclass(frozen=True)
class Classifiers:
    """G linear classifiers of standardised features.

    Args:
        weight: [D, G, C].
        bias: [G, C].
        scale: of the features that they were trained on.
    """

    weight: Tensor
    bias: Tensor
    scale: Scale

    def logits(self, x: Tensor) -> Tensor:
        """x [n, D], as it was extracted → [n, G, C]."""
        flat = torch.addmm(self.bias.flatten(), self.scale(x), self.weight.flatten(1))
        return flat.view(len(x), *self.bias.shape)


def measure_scale(features: Features, rows: Tensor) -> Scale:
    """Mean and (biased) std of some rows of x [N, D], in one pass, a chunk at a time."""
    count, mean = 0, torch.zeros(features.x.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(mean)
    for chosen in torch.split(rows, _ROWS):
        chunk = features.x[chosen].double()
        n, own = len(chunk), chunk.mean(dim=0)
        away = own - mean  # the parts are merged as in Chan, Golub and LeVeque 1979
        squares += (chunk - own).square().sum(dim=0) + away.square() * (count * n / (count + n))
        mean += away * (n / (count + n))
        count += n
    std = (squares / count).sqrt()
    # Of a constant nothing but rounding is left, which must not be blown up.
    constant = std <= mean.abs() * torch.finfo(torch.float32).eps
    return Scale(mean, std.masked_fill(constant, 1.0))


def train_together(
    features: Features,
    rows: Tensor,
    classes: int,
    pairs: Sequence[Pair],
    *,
    epochs: int,
    batch: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Classifiers:
    """Train one classifier for each pair, by SGD with momentum and a cosine from zero weights.

    An epoch is every row once, in an order drawn by a hash of (seed, epoch); its last batch may be
    smaller. Computed in the features' precision, float32 at least. Where all classifiers at once
    would not fit in memory, they are trained in groups: the answers are the same.

    Args:
        features: x may be memory-mapped; a batch of it is read at a time.
        rows: [n] int64, what to train on.
        classes: C.
        pairs: G of them.
        epochs: passes over the rows.
        batch: rows for each step.
        seed: of the orders.
        device: where it is computed.
    """
    scale = measure_scale(features, rows)
    at_once = max(1, _WEIGHTS // (features.x.shape[1] * classes))
    groups = [
        _Training(features, rows, classes, pairs[start : start + at_once], scale, device)
        for start in range(0, len(pairs), at_once)
    ]
    trained = [group.run(epochs, batch, seed) for group in groups]
    return Classifiers(
        torch.cat([each.weight for each in trained], dim=1),
        torch.cat([each.bias for each in trained]),
        scale,
    )


class _Training:
    """The weights of some classifiers on their way; columns [G C] lie classifier by classifier."""

    def __init__(
        self,
        features: Features,
        rows: Tensor,
        classes: int,
        pairs: Sequence[Pair],
        scale: Scale,
        device: torch.device | str,
    ) -> None:
        self.features, self.rows, self.scale, self.device = features, rows, scale, device
        self.classes, self.pairs = classes, pairs
        self.dtype = torch.promote_types(features.x.dtype, torch.float32)
        width, columns = features.x.shape[1], len(pairs) * classes
        zeros = functools.partial(torch.zeros, dtype=self.dtype, device=device)
        self.weight, self.bias = zeros(width, columns), zeros(columns)
        self.weight_velocity, self.bias_velocity = zeros(width, columns), zeros(columns)
        self.weight_gradient, self.bias_gradient = zeros(width, columns), zeros(columns)
        per_column = [[p.lr, p.wd] for p in pairs for _ in range(classes)]
        settings = torch.tensor(per_column, dtype=self.dtype, device=device)
        self.lr, self.wd = settings.unbind(dim=1)

    def run(self, epochs: int, batch: int, seed: int) -> Classifiers:
        steps = -(-len(self.rows) // batch)
        schedule = Schedule(epochs * steps)
        for step in range(epochs * steps):
            epoch, place = divmod(step, steps)
            if place == 0:
                key = derive_key(seed, _ORDER, epoch)
                order = torch.from_numpy(keyed_order(self.rows.numpy(), key))
            # Sorted, so that a memory map is read from front to back; the batch is the same.
            chosen = self.rows[order[place * batch : (place + 1) * batch]].sort().values
            self._gradients(*read(self.features, chosen, self.dtype, self.device))
            self._step(schedule.factor("cosine", step))
        shape = len(self.pairs), self.classes
        return Classifiers(self.weight.view(-1, *shape), self.bias.view(shape), self.scale)

    def _gradients(self, x: Tensor, labels: Tensor) -> None:
        """Those of the cross-entropies' means, in closed form: (softmax - one-hot) / n."""
        self.weight_gradient.zero_()
        self.bias_gradient.zero_()
        rows = max(1, _LOGITS // len(self.bias))
        parts = torch.split(self.scale(x), rows)
        for part, truth in zip(parts, torch.split(labels, rows), strict=True):
            logits = torch.addmm(self.bias, part, self.weight)
            error = logits.view(len(part), -1, self.classes).softmax(dim=2)
            error[torch.arange(len(part), device=error.device), :, truth] -= 1
            flat = error.flatten(1).div_(len(x))
            self.weight_gradient.addmm_(part.T, flat)
            self.bias_gradient += flat.sum(dim=0)

    def _step(self, factor: float) -> None:
        """As torch's SGD: v ← m v + g + wd w, w ← w - lr v; the bias without decay."""
        self.weight_gradient.addcmul_(self.weight, self.wd)
        self.weight_velocity.mul_(MOMENTUM).add_(self.weight_gradient)
        self.weight.addcmul_(self.weight_velocity, self.lr, value=-factor)
        self.bias_velocity.mul_(MOMENTUM).add_(self.bias_gradient)
        self.bias.addcmul_(self.bias_velocity, self.lr, value=-factor)


def read(
    features: Features, rows: Tensor, dtype: torch.dtype, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Some rows and their labels, on the device."""
    return features.x[rows].to(device, dtype), features.labels[rows].to(device)


def in_chunks(
    classifiers: Classifiers, features: Features, rows: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits [n, G, C] and labels [n] of a few rows at a time; of all rows where none are named."""
    weight = classifiers.weight
    if rows is None:
        rows = torch.arange(len(features.labels))
    at_once = max(1, min(_ROWS, _LOGITS // classifiers.bias.numel()))
    for chosen in torch.split(rows, at_once):
        x, labels = read(features, chosen, weight.dtype, weight.device)
        yield classifiers.logits(x), labels


def score_classifiers(
    classifiers: Classifiers, features: Features, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Each classifier's top-1 accuracy and mean cross-entropy, [G] float64 on the CPU.

    Where the logits are not finite, the accuracy is 0 and the loss infinite.
    """
    right = torch.zeros(len(classifiers.bias), dtype=torch.float64)
    loss, count = torch.zeros_like(right), 0
    for logits, labels in in_chunks(classifiers, features, rows):
        finite = logits.isfinite().all(dim=2)
        hits = (logits.argmax(dim=2) == labels[:, None]) & finite
        right += hits.sum(dim=0).cpu()
        truth = labels[:, None].expand(-1, logits.shape[1])
        losses = F.cross_entropy(logits.transpose(1, 2), truth, reduction="none")
        loss += losses.masked_fill(~finite, torch.inf).sum(dim=0, dtype=torch.float64).cpu()
        count += len(labels)
    return right / count, loss / count


def held_out(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split rows by class: (to fit, held out), each ascending int64.

    Of each class that has two rows or more, `share` of them is held out, but at least one and never
    all; which ones is drawn by a hash of the seed.

    Args:
        labels: [N], none negative.
        share: between 0 and 1.
        seed: of the draw.
    """
    drawn = keyed_order(np.arange(len(labels)), derive_key(seed))
    of = labels.numpy()[drawn]
    by_class = drawn[np.argsort(of, kind="stable")]  # class by class, each in the drawn order
    counts = np.bincount(of)
    place = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    quota = np.minimum(np.maximum(np.round(share * counts), 1), counts - 1)
    out = place < np.repeat(quota, counts)
    fit, held = (torch.from_numpy(np.sort(by_class[chosen])) for chosen in (~out, out))
    return fit, held
