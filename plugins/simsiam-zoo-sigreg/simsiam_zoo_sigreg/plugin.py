"""What this package supplies. No torch here: the bodies are imported when a model is built."""

from __future__ import annotations

from collections.abc import Iterator

from simsiam_zoo.plugin import Component, Param, hookimpl

LEJEPA = "arXiv:2511.08544"
_HERE = "simsiam_zoo_sigreg"


@hookimpl
def zoo_components() -> Iterator[Component]:
    """A loss, a gradient policy, a preset and a study."""
    yield Component(
        "loss",
        "sigreg",
        target=f"{_HERE}.sigreg:SigRegLoss",
        summary="Squared distance, and how far the batch is from a standard normal; minimum 0",
        params=(
            Param(
                "lambd", float, 0.02, "Weight of the regulariser; 1 - lambd: the distance's", 0, 1
            ),
            Param("slices", int, 256, "Random directions of a step", min=1),
            Param("knots", int, 17, "Points of the quadrature, from 0 to t_max", min=2),
            Param("t_max", float, 3.0, "Where the integral over t ends", min=1e-3),
        ),
        reference=f"{LEJEPA} section 4",
    )
    yield Component(
        "gradient",
        "view-mean",
        target=f"{_HERE}.view_mean:ViewMean",
        summary="Each view against the mean of all views, gradient through both",
        params=(Param("views", int, 2, "Fresh views of each image", min=2, max=16),),
        reference=f"{LEJEPA} section 5",
    )
    yield Component(
        "preset",
        "sigreg-mnist-5k",
        target=f"{_HERE}:sigreg-mnist-5k.toml",
        summary="mnist-5k without predictor and stop-gradient, with SIGReg",
        reference=LEJEPA,
    )
    yield Component(
        "study",
        "tricks",
        target=f"{_HERE}:tricks.toml",
        summary="SimSiam, SimSiam without each of its parts, and SIGReg, each tuned alike",
        reference=LEJEPA,
    )
