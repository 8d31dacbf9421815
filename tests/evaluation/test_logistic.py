from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info

from simsiam_zoo.catalog import create_component
from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.protocol import Features, FeatureSplits


@pytest.fixture(scope="module")
def splits() -> tuple[Features, Features]:
    """Overlapping classes on channels of very different scales; the test split lies elsewhere."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(4, 10, generator=generator)
    scales = torch.logspace(-3, 3, 10)

    def draw(n: int, shift: float) -> Features:
        labels = torch.randint(0, 4, (n,), generator=generator)
        x = centers[labels] + torch.randn(n, 10, generator=generator) + shift
        return Features(x * scales + 5, labels)

    return draw(300, 0.0), draw(200, 0.4)


def test_blas_has_no_more_threads_than_torch(splits, monkeypatch):
    seen = []
    fit = LogisticRegression.fit

    def watched(self, *arguments):
        pools = threadpool_info()
        seen.extend(pool["num_threads"] for pool in pools if pool["user_api"] == "blas")
        return fit(self, *arguments)

    monkeypatch.setattr(LogisticRegression, "fit", watched)
    before, threads = threadpool_info(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        create_component("protocol", "logistic")(FeatureSplits(*splits, 4))
    finally:
        torch.set_num_threads(threads)
    assert seen
    assert set(seen) == {1}
    after = threadpool_info()
    assert [x["num_threads"] for x in after] == [x["num_threads"] for x in before]


@pytest.mark.parametrize("name", ["logistic", "low-shot"])
def test_features_that_are_not_finite_are_refused(splits, name):
    train, test = splits
    torn = Features(test.x.clone(), test.labels)
    torn.x[7, 3] = torch.inf
    with pytest.raises(InputError, match="not finite"):
        create_component("protocol", name)(FeatureSplits(train, torn, 4))


@pytest.mark.parametrize("c", [1.0, 0.01])
def test_it_is_scikit_learns_logistic_regression_on_standardised_features(splits, c):
    train, test = splits
    figure = create_component("protocol", "logistic", c=c)(FeatureSplits(train, test, 4))[0]
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=500))
    theirs.fit(train.x.numpy(), train.labels.numpy())
    right = theirs.predict(test.x.numpy()) == test.labels.numpy()
    assert figure.protocol == f"logistic (C={c:g})"
    assert figure.top1 == pytest.approx(right.mean())
    assert np.array_equal(figure.correct.numpy(), right)
    assert 0.5 < figure.top1 < 1  # neither chance nor trivial
    assert figure.details["converged"] is True


def test_it_fits_on_the_training_split_alone_and_says_when_it_stopped_early(splits):
    train, test = splits
    whole = create_component("protocol", "logistic")(FeatureSplits(train, test, 4))[0]
    part = Features(test.x[:50], test.labels[:50])
    assert torch.equal(
        create_component("protocol", "logistic")(FeatureSplits(train, part, 4))[0].correct,
        whole.correct[:50],
    )
    short = create_component("protocol", "logistic", max_iter=1)(FeatureSplits(train, test, 4))[0]
    assert short.details == {"iterations": 1, "converged": False}


def test_classes_that_the_training_split_lacks_are_simply_never_predicted(splits):
    train, test = splits
    few = train.labels < 2
    figure = create_component("protocol", "logistic")(
        FeatureSplits(Features(train.x[few], train.labels[few]), test, 4)
    )[0]
    assert not figure.correct[test.labels >= 2].any()
    assert figure.correct[test.labels < 2].float().mean() > 0.7


@pytest.mark.parametrize("c", [1.0, 0.01])
def test_its_loss_is_the_optimum_that_newtons_method_finds(splits, c):
    """sum of cross-entropies + |W|^2 / 2C, minimised in float64 by scipy with exact Hessians."""
    train, _ = splits
    fitted = []
    with patch.object(LogisticRegression, "fit", autospec=True, side_effect=_keep(fitted)):
        create_component("protocol", "logistic", c=c)(FeatureSplits(train, train, 4))
    x = torch.from_numpy(StandardScaler().fit_transform(train.x.numpy())).double()

    def loss(flat: torch.Tensor) -> torch.Tensor:
        weight, bias = flat[:40].view(4, 10), flat[40:]
        data = torch.nn.functional.cross_entropy(x @ weight.T + bias, train.labels)
        return data + weight.square().sum() / (2 * c * len(x))

    def at(function):
        return lambda flat: function(torch.from_numpy(flat)).numpy()

    best = minimize(
        at(loss),
        np.zeros(44),
        jac=at(torch.func.grad(loss)),
        hess=at(torch.func.hessian(loss)),
        method="trust-exact",
        options={"gtol": 1e-9},
    )
    (model,) = fitted
    ours = loss(torch.from_numpy(np.concatenate([model.coef_.ravel(), model.intercept_])).double())
    assert best.fun - 1e-9 < ours.item() < best.fun + 1e-3
    assert best.fun < np.log(4) - 0.2  # there was a way to go


def _keep(fitted: list[LogisticRegression]):
    fit = LogisticRegression.fit

    def fit_and_keep(model, *arguments):
        fitted.append(model)
        return fit(model, *arguments)

    return fit_and_keep
