"""What this package supplies: TOML files, each the settings of a run that others published."""

from __future__ import annotations

from collections.abc import Iterator

from simsiam_zoo.plugin import Component, hookimpl

LIGHTLY = "https://docs.lightly.ai/self-supervised-learning/getting_started/benchmarks.html"
SOLO = "https://github.com/vturrisi/solo-learn"


@hookimpl
def zoo_components() -> Iterator[Component]:
    """Six presets, and the study of the batches and lengths that one source compared."""
    for name, reference, summary in (
        ("cifar10-lightly", LIGHTLY, "lightly's CIFAR-10 benchmark, 800 epochs at batch 512"),
        ("cifar10-lightly-200", LIGHTLY, "The same, 200 epochs at batch 128"),
        ("cifar10-solo", SOLO, "solo-learn's CIFAR-10 settings, 1,000 epochs at batch 256"),
        ("cifar100-solo", SOLO, "solo-learn's CIFAR-100 settings, 1,000 epochs at batch 256"),
        ("imagenette-lightly", LIGHTLY, "lightly's Imagenette benchmark at 128 px, 800 epochs"),
        ("imagenet100-solo", SOLO, "solo-learn's ImageNet-100 settings, 400 epochs at batch 256"),
    ):
        target = f"simsiam_zoo_anchors:{name}.toml"
        yield Component("preset", name, target, summary, reference=reference)
    yield Component(
        "study",
        "lightly-cifar10",
        "simsiam_zoo_anchors:lightly-cifar10.toml",
        "The batches and lengths that lightly's CIFAR-10 benchmark compares",
        reference=LIGHTLY,
    )
