"""The paper's linear evaluation (arXiv:2011.10566, sec. 3): LARS on features of augmented views."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.epochs import train_epochs
from simsiam_zoo.evaluation.protocol import (
    Augmented,
    FeatureSplits,
    Score,
    best_classes,
    check_labels,
    make_score,
)
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.optim import REFERENCE_BATCH, Lars, Schedule, all_finite
from simsiam_zoo.runtime.progress import tell

PAPER_LR, CODE_LR = 0.02, 0.1
"""Base lr of the paper's text and of its released code."""

MOMENTUM, TRUST = 0.9, 0.001

_HARDLY_TRAINED = 0.9
"""Of a guess's loss: above this share the classifier has hardly been trained by its small steps."""

_INIT_STD = 0.01  # as in the released code
_SEED = 0
_CHUNK = 4096


class LinearPaperProtocol:
    """A linear classifier on augmented views, 90 epochs of LARS; the centre views are the test.

    Views: RandomResizedCrop and flip (`augmented.py`). lr = base x batch / 256, cosine,
    momentum 0.9, no weight decay, trust coefficient 0.001 for weights and bias, nothing clipped.
    Features as they are, not standardised; weights drawn from N(0, 0.01^2), bias 0. The lr is
    outside of the momentum (w ← w - lr v), as in the released code, which has apex's LARC around
    torch's SGD. The paper's text says base lr 0.02, its released code 0.1; both are in the figure's
    name, after the one that was used.

    Under torchrun every rank has to call it, and all return the same figure: each takes its share
    of every batch, and gradients are averaged. With a `splits.folder`, which has to be of these
    features and parameters alone, it goes on after an interruption from the last epoch that was
    saved, to the same bits. `batch`: images of all ranks; at most all of the training set.
    """

    version = 2
    collective = True  # every rank calls it

    def __init__(self, *, lr: float, epochs: int, batch: int) -> None:
        self.lr, self.epochs, self.batch = lr, epochs, batch

    def __call__(self, splits: FeatureSplits) -> list[Score]:
        """Train on augmented views, classify the centre views of the test images.

        InputError: no labels, no images to augment, a batch that the ranks cannot share, or it
        diverged. DataError: its checkpoints are damaged.
        """
        check_labels(splits.train, splits.test, splits.classes)
        if splits.augmented is None:
            raise InputError(
                "linear-paper trains on augmented views, and here are only features",
                "Evaluate a run or a network together with its images, or use the protocol linear.",
            )
        batch = min(self.batch, len(splits.train.labels))
        if batch % (world := distributed.world_size()):
            raise InputError(
                f"linear-paper: a batch of {batch} cannot be shared by {world} ranks equally",
                f"Say linear-paper:batch={batch - batch % world}, or use another number of ranks.",
            )
        training = _Training(self, splits, batch)
        training.run(splits.augmented)
        guess = math.log(splits.classes)
        if training.loss > _HARDLY_TRAINED * guess:
            tell(
                f"linear-paper: its classifier is hardly trained (loss {training.loss:.2f}, a guess"
                f" has {guess:.2f}): {training.steps * self.epochs:,} steps are too few for its lr;"
                " take linear or logistic for so few images"
            )
        name = (
            f"linear-paper (lr={self.lr:g}; paper {PAPER_LR:g}, its code {CODE_LR:g};"
            f" batch={batch}, epochs={self.epochs})"
        )
        details = {"steps": training.steps * self.epochs, "last_loss": round(training.loss, 6)}
        predicted = training.ranked(splits.test.x)
        return [
            make_score(name, self.version, predicted, splits.test.labels, splits.classes, details)
        ]


class _Training:
    """A classifier on its way through the epochs."""

    def __init__(self, protocol: LinearPaperProtocol, splits: FeatureSplits, batch: int) -> None:
        self.splits, self.batch, self.epochs = splits, batch, protocol.epochs
        self.steps = len(splits.train.labels) // batch  # of an epoch: whole batches only
        width = splits.train.x.shape[1]
        generator = torch.Generator().manual_seed(_SEED)
        weight = torch.randn(splits.classes, width, generator=generator) * _INIT_STD
        # By way of "meta", since the caller's generator must not be drawn from.
        head = nn.Linear(width, splits.classes, device="meta")
        self.head = head.to_empty(device=splits.device)
        self.head.load_state_dict({"weight": weight, "bias": torch.zeros(splits.classes)})
        peak = protocol.lr * batch / REFERENCE_BATCH
        parameters = [*self.head.parameters()]
        group = {"params": parameters, "peak_lr": peak, "schedule": "cosine"}
        self.lars = Lars([group], momentum=MOMENTUM, trust_coefficient=TRUST, lr_in_momentum=False)
        self.loss = float("nan")
        self.folder = splits.folder and splits.folder / f"version-{protocol.version}"

    def run(self, augmented: Augmented) -> None:
        """Every epoch that is left, from the last checkpoint on."""
        schedule = Schedule(self.epochs * self.steps)

        def train(epoch: int) -> float:
            total = torch.zeros((), dtype=torch.float64)
            # There may be one more: damaged images have no centre features, but count there.
            batches = itertools.islice(augmented(epoch, self.batch), self.steps)
            taken = 0
            for taken, features in enumerate(batches, start=1):
                schedule.apply(self.lars, epoch * self.steps + taken - 1)
                total += self._step(features.x, features.labels)
            assert taken == self.steps, f"epoch {epoch} had {taken} batches, not {self.steps}"
            if not all_finite(self.head.parameters()):
                raise InputError(
                    f"linear-paper diverged in epoch {epoch + 1} of {self.epochs}",
                    f"The base lr may be too high: linear-paper:lr={PAPER_LR}",
                )
            return float(distributed.mean(total) / self.steps)

        kept = {"head": self.head, "optimizer": self.lars}
        self.loss = train_epochs(self.epochs, self.folder, kept, train)

    def _step(self, x: Tensor, labels: Tensor) -> Tensor:
        """One step on this rank's share of a batch; the share's loss, on the CPU."""
        loss = F.cross_entropy(self.head(x.to(self.head.weight)), labels.to(self.splits.device))
        self.lars.zero_grad()
        torch.autograd.backward(loss)
        for parameter in self.head.parameters():
            assert parameter.grad is not None
            parameter.grad = distributed.mean(parameter.grad)
        self.lars.step()
        return loss.detach().double().cpu()

    @torch.no_grad()
    def ranked(self, x: Tensor) -> Tensor:
        """The best classes of features [N, D], the best first."""
        parts = (part.to(self.head.weight) for part in torch.split(x, _CHUNK))
        return torch.cat([best_classes(self.head(part)) for part in parts])
