"""What this package supplies. No torch here: the bodies are imported when they are used."""

from __future__ import annotations

from collections.abc import Iterator

from simsiam_zoo.plugin import Component, Param, hookimpl

_HERE = "simsiam_zoo_transfer"


@hookimpl
def zoo_components() -> Iterator[Component]:
    """Two protocols and an export format."""
    views = (
        Param("min_scale", float, 0.08, "Least share of an image that a crop shows", 0.01, 1),
        Param("flip_p", float, 0.5, "How often a view is mirrored; 0 for digits, say", 0, 1),
        Param("seed", int, 0, "Draws the new layers' weights, and dropout", 0, 2**31 - 1),
    )
    yield Component(
        "protocol",
        "finetune",
        target=f"{_HERE}.finetune:FineTuneProtocol",
        summary="All layers trained on the labels; trains the untrained network beside it",
        reference="arXiv:2002.05709 appendix B.5 (sgd), arXiv:2111.06377 (adamw)",
        params=(
            Param("optimizer", str, "sgd", "sgd for ResNets, adamw for ViTs", choices=_OPTIMIZERS),
            Param("lr", float, None, "Base lr (default: sgd 0.05, adamw 0.0005)", min=0),
            Param("head_lr", float, None, "Base lr of the new layer (default: lr)", min=0),
            Param("wd", float, None, "Weight decay (default: sgd 0, adamw 0.05)", min=0),
            Param("epochs", int, 30, "Passes over the training images", min=1),
            Param("warmup", int, 1, "Epochs in which the lr grows, of those", min=0),
            Param("batch", int, 256, "Images per step; at most the training set", min=2),
            *views,
        ),
    )
    yield Component(
        "protocol",
        "attentive-probe",
        target=f"{_HERE}.attentive:AttentiveProbeProtocol",
        summary="A query that attends to frozen tokens, then a linear classifier",
        reference="arXiv:2401.08541, arXiv:2404.08471",
        params=(
            Param("heads", int, 8, "Attention heads; the tokens' width is a multiple", min=1),
            Param("lr", float, 0.001, "Base lr of AdamW", min=0),
            Param("wd", float, 0.001, "Weight decay of matrices", min=0),
            Param("epochs", int, 20, "Passes over the training images", min=1),
            Param("warmup", int, 0, "Epochs in which the lr grows, of those", min=0),
            Param("batch", int, 256, "Images per step; at most the training set", min=2),
            *views,
        ),
    )
    yield Component(
        "format",
        "torchvision-detection",
        target=f"{_HERE}.detection:DetectionFormat",
        summary="A ResNet for torchvision's detectors with FPN, and its segmentation models",
        reference="torchvision.models.detection",
        params=(
            Param("model", str, "fasterrcnn", "The detector of the example", choices=_DETECTORS),
            Param("classes", int, 91, "Its classes, background included: VOC 21, COCO 91", min=2),
        ),
    )


_OPTIMIZERS = ("sgd", "adamw")
_DETECTORS = ("fasterrcnn", "maskrcnn")
