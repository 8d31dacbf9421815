from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix as their_confusion
from sklearn.metrics import recall_score, top_k_accuracy_score

from simsiam_zoo.evaluation.protocol import (
    bootstrap_interval,
    class_accuracies,
    confusion_matrix,
    make_score,
)


@pytest.fixture(scope="module")
def guesses() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores [300, 8] without ties, the classes they rank [300, 8], labels (no class 5)."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(300, 8, generator=generator)
    labels = torch.randint(0, 7, (300,), generator=generator)
    labels[labels == 5] = 7
    return scores, scores.argsort(dim=1, descending=True), labels


def test_a_plot_backend_that_is_not_here_stops_no_confusion_matrix():
    code = (
        "import os, torch; from simsiam_zoo.evaluation.protocol import confusion_matrix;"
        "one = torch.tensor([1, 0]);"
        "assert confusion_matrix(one, one, 2).tolist() == [[1, 0], [0, 1]];"
        "assert os.environ['MPLBACKEND'] == 'nonsense'"
    )
    env = os.environ | {"MPLBACKEND": "nonsense"}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


def test_top_5_is_scikit_learns(guesses):
    scores, ranked, labels = guesses
    expected = top_k_accuracy_score(labels, scores, k=5, labels=range(8))
    assert make_score("p", 1, ranked[:, :5], labels, 8).top5 == pytest.approx(expected, rel=1e-12)


def test_confusion_and_class_accuracies_are_scikit_learns(guesses):
    _, ranked, labels = guesses
    confusion = confusion_matrix(ranked[:, 0], labels, 8)
    assert (confusion.numpy() == their_confusion(labels, ranked[:, 0], labels=range(8))).all()
    recalls = recall_score(
        labels, ranked[:, 0], labels=range(8), average=None, zero_division=np.nan
    )
    found = class_accuracies(confusion)
    assert found[5] is None  # no image of it: 0 would be a lie
    given = [math.nan if x is None else x for x in found]
    assert given == pytest.approx(recalls, nan_ok=True)


@pytest.mark.parametrize(("n", "right"), [(1000, 900), (450, 443), (60, 30)])
def test_the_interval_is_that_of_resampled_images(n, right):
    correct = torch.arange(n) < right
    low, high = bootstrap_interval(correct)
    assert (low, high) == bootstrap_interval(correct.flip(0))  # a fixed seed, no order
    rng = np.random.default_rng(1)
    shares = correct.numpy()[rng.integers(0, n, (4000, n))].mean(axis=1)
    expected = np.quantile(shares, (0.025, 0.975))
    error = math.sqrt(right / n * (1 - right / n) / n)
    assert np.abs(np.array([low, high]) - expected).max() < 0.3 * error + 1 / n


def test_an_interval_of_what_is_certain_is_a_point():
    assert bootstrap_interval(torch.ones(9, dtype=torch.bool)) == (1.0, 1.0)
    assert bootstrap_interval(torch.zeros(9, dtype=torch.bool)) == (0.0, 0.0)


def test_a_figure_has_top_5_where_it_says_something(guesses):
    _, ranked, labels = guesses
    made = make_score("p", 1, ranked[:, :5], labels, 8)
    assert made.top5 is not None
    assert made.top1 == pytest.approx((ranked[:, 0] == labels).double().mean().item())
    assert made.interval is not None
    assert made.interval[0] < made.top1 < made.interval[1]
    assert make_score("p", 1, ranked[:, 0], labels, 8).top5 is None  # nobody ranked them
    few = make_score("p", 1, torch.tensor([[0, 1, 2, 3, 4]]), torch.tensor([4]), 5)
    assert (few.top1, few.top5) == (0.0, None)  # always right among five of five
