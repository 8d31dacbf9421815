"""The logger `mlflow`: its name and parameters. MLflow itself is imported when it is used."""

from __future__ import annotations

from collections.abc import Iterator

from simsiam_zoo.plugin import Component, Param, hookimpl


@hookimpl
def zoo_components() -> Iterator[Component]:
    """The logger."""
    yield Component(
        "logger",
        "mlflow",
        target="simsiam_zoo_mlflow.logger:MlflowLogger",
        summary="MLflow: figures over steps, the recipe as parameters, the verdict",
        params=(
            Param("experiment", str, "simsiam-zoo", "Experiment", operational=True),
            Param(
                "uri",
                str,
                None,
                "Tracking store or server (default: MLFLOW_TRACKING_URI, or MLflow's own)",
                operational=True,
            ),
        ),
        reference="https://mlflow.org",
    )
