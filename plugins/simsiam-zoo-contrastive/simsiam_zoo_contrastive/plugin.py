"""What this package supplies. No torch here: the bodies are imported when a model is built."""

from __future__ import annotations

from collections.abc import Iterator

from simsiam_zoo.plugin import Component, Param, hookimpl

SIMCLR = "arXiv:2002.05709"
_HERE = "simsiam_zoo_contrastive"


@hookimpl
def zoo_components() -> Iterator[Component]:
    """One loss, two presets, one study."""
    yield Component(
        "loss",
        "nt-xent",
        target=f"{_HERE}.nt_xent:NTXentLoss",
        summary="SimCLR's: cross-entropy of finding the other view among the batch's",
        params=(Param("temperature", float, 0.1, "What similarities are divided by", min=1e-3),),
        reference=f"{SIMCLR} eq. 1",
    )
    yield Component(
        "preset",
        "simclr",
        target=f"{_HERE}:simclr.toml",
        summary="SimCLR's ImageNet settings, 100 epochs at batch 4096",
        reference=f"{SIMCLR} sections 2.2 and 2.3",
    )
    yield Component(
        "preset",
        "simclr-mnist-5k",
        target=f"{_HERE}:simclr-mnist-5k.toml",
        summary="mnist-5k-resnet10t with SimCLR's loss, predictor and gradient policy",
        reference=SIMCLR,
    )
    yield Component(
        "study",
        "simclr-predictor",
        target=f"{_HERE}:simclr-predictor.toml",
        summary="SimCLR, with a predictor, and with a predictor and stop-gradient",
        reference="arXiv:2011.10566 section 6.2",
    )
