"""The grid of linear classifiers against classifiers trained one by one, and scikit-learn's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from simsiam_zoo.catalog import create_component
from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation import linear
from simsiam_zoo.evaluation.linear import (
    Classifiers,
    default_batch,
    held_out,
    measure_scale,
    score_classifiers,
    standardise,
    train_together,
)
from simsiam_zoo.evaluation.protocol import Features, FeatureSplits, Score
from simsiam_zoo.runtime.optim import Schedule

CLASSES = 4
PAIRS = [(0.01, 0.0), (0.3, 0.0), (0.1, 0.05)]


def draw(n: int, seed: int, dtype: torch.dtype = torch.float32) -> Features:
    """Overlapping classes on channels of very different scales and places."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    centers = torch.randn(CLASSES, 6, generator=torch.Generator().manual_seed(9), dtype=dtype)
    x = centers[labels] + torch.randn(n, 6, generator=generator, dtype=dtype)
    return Features(x * torch.logspace(-3, 3, 6, dtype=dtype) + 50, labels)


@pytest.fixture(scope="module")
def splits() -> FeatureSplits:
    return FeatureSplits(draw(240, 0), draw(120, 1), CLASSES)


@pytest.fixture(scope="module")
def figure(splits: FeatureSplits) -> Score:
    return create_component("protocol", "linear", epochs=10)(splits)[0]


def one_by_torch(
    features: Features, pair: tuple[float, float], orders: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """The same classifier by torch's own SGD and autograd, on standardised features."""
    x = torch.from_numpy(StandardScaler().fit_transform(features.x.numpy()))
    head = nn.Linear(x.shape[1], CLASSES).double()
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    decayed = {"params": [head.weight], "weight_decay": pair[1]}
    sgd = torch.optim.SGD([decayed, {"params": [head.bias]}], lr=pair[0], momentum=0.9)
    schedule = Schedule(len(orders))
    for step, rows in enumerate(orders):
        for group in sgd.param_groups:
            group["lr"] = pair[0] * schedule.factor("cosine", step)
        sgd.zero_grad()
        F.cross_entropy(head(x[rows]), features.labels[rows]).backward()
        sgd.step()
    return head.weight.detach().T, head.bias.detach()


def test_each_of_those_trained_together_is_the_one_that_torch_trains_alone(monkeypatch):
    features, seen = draw(50, 0, torch.float64), []
    read = linear._read
    monkeypatch.setattr(
        linear, "_read", lambda f, rows, like: seen.append(rows) or read(f, rows, like)
    )
    trained = train_together(features, torch.arange(50), CLASSES, PAIRS, epochs=4, batch=16)
    assert [len(rows) for rows in seen[:4]] == [16, 16, 16, 2]
    assert torch.cat(seen[:4]).sort().values.tolist() == list(range(50))
    assert torch.cat(seen[:4]).tolist() != torch.cat(seen[4:8]).tolist()
    for at, pair in enumerate(PAIRS):
        weight, bias = one_by_torch(features, pair, seen)
        torch.testing.assert_close(trained.weight[:, at], weight, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(trained.bias[at], bias, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("wd", [1e-3, 1e-2])
def test_converged_it_is_at_scikit_learns_optimum_with_c_1_by_wd_n(wd):
    x, y = load_digits(return_X_y=True)
    x, y = x[:400, ::2], y[:400]
    features = Features(torch.from_numpy(x), torch.from_numpy(y).long())
    trained = train_together(features, torch.arange(400), 10, [(0.5, wd)], epochs=400, batch=200)
    scaled = StandardScaler().fit_transform(x)
    model = LogisticRegression(C=1 / (wd * 400), tol=1e-8, max_iter=5000).fit(scaled, y)

    def objective(probabilities: np.ndarray, weight: np.ndarray) -> float:
        return log_loss(y, probabilities) + wd / 2 * float((weight**2).sum())

    ours = objective(
        trained.logits(features.x)[:, 0].softmax(1).numpy(), trained.weight[:, 0].numpy()
    )
    best = objective(model.predict_proba(scaled), model.coef_)
    start = np.log(10)
    assert best - 1e-9 < ours < best + 1e-3
    assert best < start - 1  # there was a way to go


def test_the_mean_and_the_std_are_scikit_learns(monkeypatch):
    monkeypatch.setattr(linear, "_ROWS", 7)
    x = draw(60, 0).x
    x[:, 2] = 0.1  # constant, and not exactly so in binary
    rows = torch.arange(0, 60, 2)
    mean, std = measure_scale(x, rows)
    theirs = StandardScaler().fit(x[rows].double().numpy())
    np.testing.assert_allclose(mean.numpy(), theirs.mean_, rtol=1e-12)
    np.testing.assert_allclose(std.numpy(), theirs.scale_, rtol=1e-9)
    assert std[2] == 1


def test_accuracies_and_losses_are_each_classifiers_own(monkeypatch):
    monkeypatch.setattr(linear, "_ROWS", 7)
    features = draw(40, 0, torch.float64)
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(6, 3, CLASSES, generator=generator, dtype=torch.float64)
    bias = torch.randn(3, CLASSES, generator=generator, dtype=torch.float64)
    bias[2, 1] = torch.nan
    scale = measure_scale(features.x, torch.arange(40))
    top1, loss = score_classifiers(Classifiers(weight, bias, *scale), features, torch.arange(5, 38))
    x, y = standardise(features.x, *scale)[5:38], features.labels[5:38]
    for at in range(2):
        logits = x @ weight[:, at] + bias[at]
        assert top1[at].item() == pytest.approx((logits.argmax(1) == y).double().mean().item())
        assert loss[at].item() == pytest.approx(F.cross_entropy(logits, y).item())
    assert (top1[2], loss[2]) == (0, torch.inf)


def test_a_tenth_of_each_class_is_held_out_but_never_all_of_it():
    labels = torch.tensor([0] * 100 + [1] * 14 + [2] * 3 + [3] + [5] * 2)[torch.randperm(120)]
    fit, held = held_out(labels, 0.1, seed=0)
    assert torch.cat([fit, held]).sort().values.tolist() == list(range(120))
    assert labels[held].bincount().tolist() == [10, 1, 1, 0, 0, 1]
    again, other = held_out(labels, 0.1, seed=0)[1], held_out(labels, 0.1, seed=1)[1]
    assert torch.equal(again, held)
    assert not torch.equal(other, held)


def test_the_best_on_held_out_training_images_is_trained_anew_on_all_of_them(splits, figure):
    """As composed by hand of what the tests above hold."""
    protocol = create_component("protocol", "linear", epochs=10)
    fit, held = held_out(splits.train.labels, 0.1, 0)
    pairs = [(lr * 64 / 256, wd) for lr, wd in protocol.grid]
    settings = {"epochs": 10, "batch": 64}
    top1, loss = score_classifiers(
        train_together(splits.train, fit, 4, pairs, **settings), splits.train, held
    )
    best = max(range(20), key=lambda at: (top1[at], -loss[at]))
    final = train_together(splits.train, torch.arange(240), 4, [pairs[best]], **settings)
    right = final.logits(splits.test.x)[:, 0].argmax(1) == splits.test.labels
    assert torch.equal(figure.correct, right)
    assert 0.5 < figure.top1 < 1  # neither chance nor trivial
    assert figure.protocol == "linear (best of 20, batch=auto, epochs=10)"
    assert figure.details["batch"] == 64
    assert (figure.details["lr"], figure.details["wd"]) == protocol.grid[best]
    grid = figure.details["grid"]
    assert [(row["lr"], row["wd"]) for row in grid] == protocol.grid
    assert [row["top1"] for row in grid] == pytest.approx(top1.tolist(), abs=1e-6)
    assert len(set(top1.tolist())) > 1


def test_the_test_images_choose_nothing(splits, figure):
    relabelled = Features(splits.test.x, (splits.test.labels + 1) % CLASSES)
    other = create_component("protocol", "linear", epochs=10)(
        FeatureSplits(splits.train, relabelled, CLASSES)
    )[0]
    assert other.details == figure.details
    assert other.top1 < 0.3


def test_it_is_the_same_to_the_bit_again_and_from_a_memory_map(splits, figure, tmp_path: Path):
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=tuple(splits.train.x.shape))
    mapped[:] = splits.train.x.numpy()
    train = Features(torch.from_numpy(mapped), splits.train.labels)
    again = create_component("protocol", "linear", epochs=10)(
        FeatureSplits(train, splits.test, CLASSES)
    )[0]
    assert again.details == figure.details
    assert torch.equal(again.correct, figure.correct)


def test_a_classifier_that_diverges_is_never_chosen_and_harms_no_other(splits):
    both = create_component("protocol", "linear", lrs=[1e30, 0.1], wds=[0.01], epochs=5)(splits)[0]
    alone = create_component("protocol", "linear", lrs=[0.1], wds=[0.01], epochs=5)(splits)[0]
    assert torch.equal(both.correct, alone.correct)
    wild, tame = both.details["grid"]
    assert wild == {"lr": 1e30, "wd": 0.01, "top1": 0.0, "loss": None}
    assert [tame] == alone.details["grid"]
    with pytest.raises(InputError, match="every linear classifier of the grid diverged"):
        create_component("protocol", "linear", lrs=[1e30], wds=[0.01], epochs=5)(splits)


def test_what_cannot_be_is_refused(splits):
    for params, words in (
        ("lrs=0.1;0.2", "lrs of protocol linear is a list, each a number"),
        ("lrs=0/0.1", "lrs of protocol linear is a list, each a number >= 1e-12, not 0.0"),
        ("wds=-1", "wds of protocol linear is a list, each a number >= 0, not -1.0"),
        ("wds=", "wds of protocol linear is a list"),
    ):
        with pytest.raises(InputError, match=words):
            create_component("protocol", f"linear:{params}")
    one_each = Features(splits.train.x[:4], splits.train.labels[:4])
    with pytest.raises(InputError, match="no class has two of the 4 training images"):
        create_component("protocol", "linear")(FeatureSplits(one_each, splits.test, CLASSES))


def test_a_figure_has_the_same_name_whatever_the_size_of_the_data(splits):
    few = Features(splits.train.x[:100], splits.train.labels[:100])
    names = [
        create_component("protocol", "linear", lrs=[0.1], wds=[0.01], epochs=1, batch=batch)(
            FeatureSplits(train, splits.test, CLASSES)
        )[0].protocol
        for train in (splits.train, few)
        for batch in (None, 50)
    ]
    assert names == [f"linear (best of 1, batch={b}, epochs=1)" for b in ("auto", 50)] * 2


def test_the_batch_grows_with_the_training_set():
    sizes = (100, 4_000, 60_000, 1_281_167)
    assert [default_batch(n) for n in sizes] == [64, 64, 1024, 4096]


def test_the_scale_of_a_float64_measurement_works_on_float32():
    scale = torch.ones(3, dtype=torch.float64), torch.full((3,), 2.0, dtype=torch.float64)
    assert standardise(torch.full((2, 3), 5.0), *scale).tolist() == [[2.0] * 3] * 2
