"""The logger `mlflow`."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from simsiam_zoo.plugin import PluginError, atomic_write_text, run_title

_ID_FILE = "mlflow-id.txt"
_BATCH = 100  # parameters that MLflow takes at once
_LONGEST = 6000  # characters of a parameter's value, and of a tag's


class MlflowLogger:
    """Each figure over steps, the recipe as parameters, verdict and final figures at the end.

    A run that goes on keeps its id, which is in mlflow-id.txt in its folder.

    Args:
        experiment: what the run is filed under; made where there is none of that name.
        uri: of the tracking store; None is what MLFLOW_TRACKING_URI says, or MLflow's default.

    Raises:
        PluginError: the store cannot be opened.
    """

    def __init__(self, *, experiment: str, uri: str | None) -> None:
        # Otherwise MLflow reports its use to its makers.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        self._entities: Any = mlflow.entities
        self._logged: dict[str, int] = {}
        try:
            self._client: Any = mlflow.MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(experiment)
            self._experiment = found and found.experiment_id
            if self._experiment is None:
                self._experiment = self._client.create_experiment(experiment)
        except Exception as error:  # of MLflow, of a database, of the network
            what = " ".join(str(error).split())
            raise PluginError(
                f"logger mlflow cannot open its store: {what}",
                "Write mlflow:uri=..., or set MLFLOW_TRACKING_URI. A database needs"
                " `pip install mlflow`.",
            ) from error

    def start(self, folder: Path, recipe: dict[str, Any], step: int) -> None:
        """Open the run, or open it again."""
        self._step = step
        path = folder / _ID_FILE
        if path.exists():
            self._run = path.read_text().strip()
            self._client.update_run(self._run, status="RUNNING")
        else:
            made = self._client.create_run(self._experiment, run_name=run_title(folder))
            self._run = made.info.run_id
            atomic_write_text(path, f"{self._run}\n")
        data = self._client.get_run(self._run).data
        # Rows that come again are as they were, timings aside: those that are there stay.
        self._logged = {name: self._last_step(name) for name in data.metrics}
        # A parameter is written once: what a resumed run may change decides no figure.
        params = [
            self._entities.Param(key, value[:_LONGEST])
            for key, value in _flat(recipe)
            if key not in data.params
        ]
        for first in range(0, len(params), _BATCH):
            self._client.log_batch(self._run, params=params[first : first + _BATCH])

    def log(self, row: dict[str, Any]) -> None:
        """The figures of one step."""
        self._step = row["step"]
        self._send({name: value for name, value in row.items() if name != "step"})

    def finish(self, result: dict[str, Any]) -> None:
        """The verdict as tags, the figures of each network; closes the run."""
        words = {"verdict": result["verdict"], "reason": result["reason"]}
        tags = [self._entities.RunTag(key, value[:_LONGEST]) for key, value in words.items()]
        self._client.log_batch(self._run, tags=tags)
        figures = {f"{f['network']} {f['protocol']}": f["top1"] for f in result["figures"]}
        self._send(figures)
        self._client.set_terminated(self._run)

    def _send(self, figures: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        named = ((_name(key), float(value)) for key, value in figures.items())
        metrics = [
            self._entities.Metric(name, value, now, self._step)
            for name, value in named
            if self._logged.get(name, -1) < self._step
        ]
        if metrics:
            self._client.log_batch(self._run, metrics=metrics)

    def _last_step(self, name: str) -> int:
        history = self._client.get_metric_history(self._run, name)
        return max(int(each.step) for each in history)


def _name(column: str) -> str:
    """A metric's name as MLflow takes it: `top1 knn (k=20, t=0.1)` is `top1 knn k20 t0.1`."""
    return re.sub(r"[^\w\-. /]", "", column)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested values by dotted path, as text."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)
