"""What this package supplies. No torch here: the bodies are imported when a model is built."""

from __future__ import annotations

from collections.abc import Iterator

from simsiam_zoo.plugin import Component, Param, hookimpl

BARLOW_TWINS = "arXiv:2103.03230"
VICREG = "arXiv:2105.04906"
_HERE = "simsiam_zoo_redundancy"


@hookimpl
def zoo_components() -> Iterator[Component]:
    """Two losses, and two presets for each."""
    yield Component(
        "loss",
        "barlow-twins",
        target=f"{_HERE}.barlow_twins:BarlowTwinsLoss",
        summary="The views' cross-correlation over the batch against the identity; minimum 0",
        params=(
            Param("lambd", float, 0.0051, "Weight of what is off the diagonal", min=0),
            Param("scale", float, 1.0, "Factor on the loss, for optimisers that feel it", min=1e-9),
        ),
        reference=f"{BARLOW_TWINS} eq. 1",
    )
    yield Component(
        "loss",
        "vicreg",
        target=f"{_HERE}.vicreg:VicRegLoss",
        summary="Squared distance, a variance for each channel, no covariance of two; minimum 0",
        params=(
            Param("invariance", float, 25.0, "Weight of the squared distance", min=0),
            Param("variance", float, 25.0, "Weight of the hinge on each channel's std", min=0),
            Param("covariance", float, 1.0, "Weight of the squared covariances", min=0),
            Param("gamma", float, 1.0, "The std that each channel should have", min=0),
        ),
        reference=f"{VICREG} eq. 6",
    )
    for name, what, reference in (
        ("barlow-twins", "Barlow Twins", BARLOW_TWINS),
        ("vicreg", "VICReg", VICREG),
    ):
        yield Component(
            "preset",
            name,
            target=f"{_HERE}:{name}.toml",
            summary=f"The ImageNet settings of {what}, 1,000 epochs at batch 2048",
            reference=reference,
        )
        yield Component(
            "preset",
            f"{name}-mnist-5k",
            target=f"{_HERE}:{name}-mnist-5k.toml",
            summary=f"mnist-5k-resnet10t with the loss, predictor and gradient policy of {what}",
            reference=reference,
        )
