"""What this package supplies. No torch here: the bodies are imported when a model is built."""

from __future__ import annotations

from collections.abc import Iterator

from simsiam_zoo.plugin import Component, Param, hookimpl

DIRECT_PRED = "arXiv:2102.06810"
DIRECT_SET = "arXiv:2110.04947"
_HERE = "simsiam_zoo_dynamics"


@hookimpl
def zoo_components() -> Iterator[Component]:
    """Three predictors and a gradient policy."""
    common = (
        Param("rho", float, 0.3, "What the correlation matrix keeps in a step", 0, 1),
        Param("eps", float, 0.1, "Added to the eigenvalues, of which the largest is 1", min=0),
        Param("every", int, 1, "Steps between two settings of the predictor", min=1),
    )
    yield Component(
        "predictor",
        "directpred",
        target=f"{_HERE}.direct:DirectPred",
        summary="Linear, set to the square root of z's correlation matrix; not trained",
        params=common,
        reference=f"{DIRECT_PRED} section 4",
    )
    yield Component(
        "predictor",
        "directset",
        target=f"{_HERE}.direct:DirectSet",
        summary="Linear, set to a power of z's correlation matrix; not trained",
        params=(Param("alpha", float, 0.5, "The power; 0.5 is directpred", min=0), *common),
        reference=DIRECT_SET,
    )
    yield Component(
        "predictor",
        "directcopy",
        target=f"{_HERE}.direct:DirectCopy",
        summary="Linear, a copy of z's correlation matrix, without eigenvectors; not trained",
        params=common,
        reference=DIRECT_SET,
    )
    yield Component(
        "gradient",
        "guided-stop-gradient",
        target=f"{_HERE}.guided:GuidedStopGradient",
        summary="Of each image's views, the one nearer to another image gets the gradient",
        reference="arXiv:2503.09058",
    )
