"""The logger `mlflow`: what runs leave in a store of MLflow's, read back by its own client."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simsiam_zoo import Recipe
from simsiam_zoo.plugin import PluginError
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.run_folder import read_metrics
from simsiam_zoo.training.train import train

SMALL: dict[str, object] = {
    "backbone": "test_resnet",
    "data.image_size": 16,
    "data.workers": 0,
    "projector": "mlp:layers=2,hidden_dim=32,out_dim=32",
    "predictor": "mlp:hidden_dim=8",
    "training.batch_size": 128,
    "training.epochs": 2,
    "training.threads": 1,
    "training.precision": "fp32",
    "training.checkpoint_steps": 4,
    "logging.interval_steps": 1,
    "evaluation.protocols": ("knn",),
    "evaluation.online_epochs": 1,
    "evaluation.rank_samples": 48,
    "evaluation.baselines": False,
}
"""Two epochs of ten steps on scikit-learn's digits."""


def test_listing_the_logger_does_not_import_mlflow() -> None:
    code = "import sys, simsiam_zoo_mlflow; list(simsiam_zoo_mlflow.zoo_components()); "
    code += "sys.exit('mlflow' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture(params=["file", "sqlite"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a new store."""
    pytest.importorskip("mlflow", reason="needs mlflow-skinny")
    if request.param == "file":
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        return f"file:{tmp_path / 'mlruns'}"
    for needed in ("sqlalchemy", "alembic"):
        pytest.importorskip(needed, reason="a database needs all of mlflow")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def recipe(uri: str) -> Callable[[str], Recipe]:
    """`recipe("mlflow:...")` → the recipe of a run of seconds with that logger."""
    return lambda spec: Recipe.make("digits", None, {**SMALL, "logging.loggers": [spec]})


class Logged:
    """What the store has of the run in a folder."""

    def __init__(self, uri: str, folder: Path) -> None:
        from mlflow import MlflowClient

        self.client, self.id = MlflowClient(uri), (folder / "mlflow-id.txt").read_text().strip()
        self.run = self.client.get_run(self.id)

    def history(self, name: str) -> list[tuple[int, float]]:
        found = self.client.get_metric_history(self.id, name)
        return sorted((each.step, each.value) for each in found)


def column(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(row["step"], row[name]) for row in read_metrics(folder) if name in row]


def test_a_run_has_its_name_its_rows_its_recipe_its_figures_and_its_verdict(
    uri: str, recipe: Callable[[str], Recipe], tmp_path: Path
) -> None:
    asked, folder = recipe(f"mlflow:uri={uri},experiment=mine"), tmp_path / "my-run"
    result: dict[str, Any] = train(asked, folder, progress=Progress())
    log = Logged(uri, folder)
    info, data = log.run.info, log.run.data
    assert (info.run_name, info.status) == ("my-run", "FINISHED")
    assert log.client.get_experiment(info.experiment_id).name == "mine"
    assert log.history("loss") == column(folder, "loss")
    assert log.history("top1 knn k20 t0.1") == column(folder, "top1 knn (k=20, t=0.1)")
    assert data.params["optim.lr"] == str(asked.optim.lr)
    assert data.params["predictor.hidden_dim"] == "8"
    assert data.params["evaluation.online"] == '["knn:k=20"]'
    assert (data.tags["verdict"], data.tags["reason"]) == (result["verdict"], result["reason"])
    knn = next(f for f in result["figures"] if f["protocol"] == "knn (k=20, t=0.1)")
    assert log.history("trained network knn k20 t0.1") == [(result["steps"], knn["top1"])]


def test_a_run_that_goes_on_keeps_its_id_and_has_every_step_once(
    uri: str, recipe: Callable[[str], Recipe], tmp_path: Path
) -> None:
    class Cut(Exception):
        pass

    class Cutting(Progress):
        def advance(self, done: int, text: str = "") -> None:
            if done == 7:
                raise Cut

    asked, folder = recipe(f"mlflow:uri={uri}"), tmp_path / "run"
    with pytest.raises(Cut):
        train(asked, folder, progress=Cutting())
    first = Logged(uri, folder)
    assert [step for step, _ in first.history("loss")] == list(range(1, 8))
    train(asked, folder, resume=True, progress=Progress())
    log = Logged(uri, folder)
    assert log.id == first.id
    assert log.history("loss") == column(folder, "loss")  # of which three came again
    assert log.run.info.status == "FINISHED"


def test_a_store_that_cannot_be_opened_is_told_before_the_run_begins(
    recipe: Callable[[str], Recipe], tmp_path: Path
) -> None:
    with pytest.raises(PluginError, match="logger mlflow cannot open its store") as caught:
        train(recipe("mlflow:uri=nosuch://store"), tmp_path / "run", progress=Progress())
    assert caught.value.exit_code == 3
    assert "MLFLOW_TRACKING_URI" in str(caught.value)
    assert not (tmp_path / "run").exists()
