"""The paper's linear evaluation against a plain loop, torn off half-way, and over two ranks."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from simsiam_zoo.catalog import create_component
from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.evaluation import epochs, linear_paper
from simsiam_zoo.evaluation.linear_paper import LinearPaperProtocol
from simsiam_zoo.evaluation.protocol import Augmented, Features, FeatureSplits
from simsiam_zoo.runtime.checkpoint import load_last

CLASSES, WIDTH, TRAIN = 3, 8, 50


def draw(n: int, seed: int, spread: float = 1.0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    centers = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(9))
    return Features(centers[labels] + spread * torch.randn(n, WIDTH, generator=generator), labels)


class Views:
    """Stands in for the images: an epoch's views are the features and a noise of the epoch's."""

    def __init__(self, rank: int = 0, world: int = 1, fail_in: int | None = None) -> None:
        self.rank, self.world, self.fail_in = rank, world, fail_in
        self.asked: list[tuple[int, int]] = []

    def __call__(self, epoch: int, batch: int) -> Iterator[Features]:
        self.asked.append((epoch, batch))
        share = batch // self.world
        views = draw(TRAIN, 100 + epoch)
        for start in range(0, TRAIN - batch + 1, batch):
            if epoch == self.fail_in and start:
                raise KeyboardInterrupt
            rows = slice(start + self.rank * share, start + (self.rank + 1) * share)
            yield Features(views.x[rows], views.labels[rows])


def splits(views: Augmented | None, folder: Path | None = None) -> FeatureSplits:
    return FeatureSplits(draw(TRAIN, 0), draw(60, 1), CLASSES, views, folder)


def by_hand(lr: float, batch: int, epochs: int) -> Tensor:
    """The predictions of a plain loop over the same views, LARS by its formula."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(CLASSES, WIDTH, generator=generator) * 0.01, torch.zeros(CLASSES)]
    weights = [w.double().requires_grad_() for w in weights]
    velocity = [torch.zeros_like(w) for w in weights]
    steps, done = TRAIN // batch * epochs, 0
    for epoch in range(epochs):
        for features in Views()(epoch, batch):
            rate = lr * batch / 256 * 0.5 * (1 + math.cos(math.pi * done / steps))
            loss = F.cross_entropy(features.x.double() @ weights[0].T + weights[1], features.labels)
            for w, v, g in zip(weights, velocity, torch.autograd.grad(loss, weights), strict=True):
                trust = 0.001 * w.detach().norm() / g.norm() if w.detach().norm() > 0 else 1.0
                v.mul_(0.9).add_(trust * g)
                w.data -= rate * v  # the lr stands outside of the momentum
            done += 1
    return torch.cat([w.detach().view(CLASSES, -1) for w in weights], dim=1)


def trained(folder: Path) -> Tensor:
    state, _, _ = load_last(folder / "version-2")
    return torch.cat([state["head"]["weight"], state["head"]["bias"][:, None]], dim=1)


@pytest.mark.parametrize("lr", [0.02, 30.0])
def test_the_classifier_is_that_of_a_plain_loop_with_lars_by_its_formula(lr, tmp_path):
    views = Views()
    figure = LinearPaperProtocol(lr=lr, epochs=5, batch=16)(splits(views, tmp_path))[0]
    expected = by_hand(lr, 16, 5)
    torch.testing.assert_close(trained(tmp_path).double(), expected, rtol=1e-4, atol=1e-6)
    test = draw(60, 1)
    predicted = (test.x.double() @ expected[:, :-1].T + expected[:, -1]).argmax(1)
    assert torch.equal(figure.correct, predicted == test.labels)
    assert views.asked == [(epoch, 16) for epoch in range(5)]
    assert figure.details["steps"] == 15


def test_a_classifier_that_few_small_steps_leave_untrained_is_told(capsys):
    LinearPaperProtocol(lr=300.0, epochs=20, batch=16)(splits(Views()))
    assert "hardly trained" not in capsys.readouterr().err
    LinearPaperProtocol(lr=0.02, epochs=1, batch=16)(splits(Views()))
    told = capsys.readouterr().err
    assert "hardly trained (loss 1.11, a guess has 1.10): 3 steps are too few" in told


def test_its_name_says_which_lr_was_used_and_which_the_paper_and_its_code_have():
    assert create_component("protocol", "linear-paper").lr == 0.1
    assert (
        create_component("protocol", "linear-paper").epochs,
        create_component("protocol", "linear-paper").batch,
    ) == (90, 4096)
    views = Views()
    for lr, words in ((0.1, "lr=0.1;"), (0.02, "lr=0.02;")):
        name = create_component("protocol", "linear-paper", lr=lr, epochs=1)(splits(views))[
            0
        ].protocol
        assert name == f"linear-paper ({words} paper 0.02, its code 0.1; batch=50, epochs=1)"
    assert views.asked == [(0, TRAIN)] * 2  # at most the training set


def test_torn_off_it_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(epochs, "SAVE_SECONDS", 0.0)
    protocol = LinearPaperProtocol(lr=10.0, epochs=4, batch=16)
    whole = protocol(splits(Views(), tmp_path / "whole"))[0]
    with pytest.raises(KeyboardInterrupt):
        protocol(splits(Views(fail_in=2), tmp_path / "torn"))
    views = Views()
    resumed = protocol(splits(views, tmp_path / "torn"))[0]
    assert [epoch for epoch, _ in views.asked] == [2, 3]
    assert torch.equal(trained(tmp_path / "torn"), trained(tmp_path / "whole"))
    assert resumed.details == whole.details
    assert torch.equal(resumed.correct, whole.correct)

    done = Views()  # all done: nothing is trained any more
    assert torch.equal(protocol(splits(done, tmp_path / "torn"))[0].correct, whole.correct)
    assert done.asked == []


def test_a_checkpoint_is_saved_once_a_minute_and_at_the_end(tmp_path, monkeypatch):
    saved: list[int] = []
    monkeypatch.setattr(epochs, "save_checkpoint", lambda _, epoch, __: saved.append(epoch))
    clock = iter(range(0, 1000, 25))
    monkeypatch.setattr(epochs.time, "monotonic", lambda: next(clock))
    create_component("protocol", "linear-paper", epochs=8, batch=16)(splits(Views(), tmp_path))
    assert saved[-1] == 8
    assert 2 <= len(saved) <= 4


def test_damaged_checkpoints_are_said_to_be(tmp_path):
    protocol = create_component("protocol", "linear-paper", epochs=1, batch=16)
    protocol(splits(Views(), tmp_path))
    (path,) = tmp_path.glob("*/step-00000001.pt")
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match="is damaged"):
        protocol(splits(Views(), tmp_path))


class TwoRanks:
    """Two threads in the place of two processes: what `linear_paper` asks of `distributed`."""

    def __init__(self) -> None:
        self.local = threading.local()
        self.barrier = threading.Barrier(2, timeout=60)
        self.said: list[Tensor | None] = [None, None]

    def rank(self) -> int:
        return int(self.local.rank)

    def world_size(self) -> int:
        return 2

    def mean(self, x: Tensor) -> Tensor:
        self.said[self.rank()] = x
        self.barrier.wait()
        both = (self.said[0] + self.said[1]) / 2
        self.barrier.wait()
        return both

    def together(self, work):
        return work()

    def from_main(self, work):
        if self.rank() == 0:
            self.of_main = work()
        self.barrier.wait()
        found = self.of_main
        self.barrier.wait()
        return found


def test_two_ranks_with_half_of_each_batch_are_one(tmp_path, monkeypatch):
    protocol = LinearPaperProtocol(lr=10.0, epochs=3, batch=16)
    one = protocol(splits(Views(), tmp_path / "one"))[0]
    ranks = TwoRanks()
    monkeypatch.setattr(linear_paper, "distributed", ranks)
    monkeypatch.setattr(epochs, "distributed", ranks)
    figures: dict[int, object] = {}

    def run(rank: int) -> None:
        ranks.local.rank = rank
        figures[rank] = protocol(splits(Views(rank, 2), tmp_path / "two"))[0]

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(figures) == [0, 1]
    for figure in figures.values():
        assert torch.equal(figure.correct, one.correct)
        assert figure.details["last_loss"] == pytest.approx(one.details["last_loss"], abs=2e-6)
    torch.testing.assert_close(trained(tmp_path / "two"), trained(tmp_path / "one"))


def test_what_cannot_be_is_refused(monkeypatch):
    with pytest.raises(InputError, match="use the protocol linear"):
        create_component("protocol", "linear-paper")(splits(None))
    monkeypatch.setattr(linear_paper.distributed, "world_size", lambda: 3)
    with pytest.raises(InputError, match="a batch of 50 cannot be shared by 3 ranks") as error:
        create_component("protocol", "linear-paper")(splits(Views()))
    assert "linear-paper:batch=48" in str(error.value)
    monkeypatch.undo()

    def infinite(epoch: int, batch: int) -> Iterator[Features]:
        for features in Views()(epoch, batch):
            yield Features(features.x * torch.inf, features.labels)

    with pytest.raises(InputError, match="diverged in epoch 1 of 2"):
        create_component("protocol", "linear-paper", epochs=2, batch=16)(splits(infinite))
