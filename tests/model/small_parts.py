"""The five parts of a small network, any of them replaced."""

from __future__ import annotations

from simsiam_zoo.catalog import Catalog, Resolved, catalog

SMALL = {
    "backbone": "resnet10t",
    "projector": "mlp:layers=2,hidden_dim=32,out_dim=24",
    "predictor": "mlp",
    "gradient": "stop-gradient",
    "loss": "cosine",
}


def parts(source: Catalog | None = None, **specs: str) -> dict[str, Resolved]:
    source = source or catalog()
    return {kind: source.resolve(kind, spec) for kind, spec in (SMALL | specs).items()}
