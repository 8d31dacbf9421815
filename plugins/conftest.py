"""Each package's tests see that package and the built-in components, whatever else is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from simsiam_zoo import Recipe, train
from simsiam_zoo.runtime.progress import Progress

PLUGINS = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def _this_package_alone(request: pytest.FixtureRequest) -> Iterator[None]:
    distribution = request.path.relative_to(PLUGINS).parts[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMSIAM_ZOO_PLUGINS", distribution)
        yield


@pytest.fixture
def tiny() -> Callable[..., Recipe]:
    """`tiny(gradient="momentum")` → a recipe of 8 steps on digits, about a second."""

    def make(**settings: object) -> Recipe:
        small: dict[str, object] = {
            "backbone": "test_resnet",
            "projector": "mlp:layers=2,hidden_dim=32,out_dim=32",
            "predictor": "mlp:hidden_dim=8",
            "data.image_size": 16,
            "data.workers": 0,
            "training.batch_size": 160,
            "training.epochs": 1,
            "training.threads": 1,
            "training.precision": "fp32",
            "training.checkpoint_steps": 4,
            "logging.interval_steps": 1,
            "evaluation.online_epochs": 0,
            "evaluation.protocols": [],
            "evaluation.rank_samples": 48,
            "evaluation.baselines": False,
        }
        return Recipe.make("digits", None, {**small, **settings})

    return make


class _Killed(Exception):
    pass


@pytest.fixture
def killed_at() -> Callable[[int, Recipe, Path], None]:
    """`killed_at(6, recipe, folder)`: its work ends after a step, as by a kill."""

    def run(step: int, recipe: Recipe, folder: Path) -> None:
        class Killing(Progress):
            def advance(self, done: int, text: str = "") -> None:
                if done == step:
                    raise _Killed

        with pytest.raises(_Killed):
            train(recipe, folder, progress=Killing())

    return run
