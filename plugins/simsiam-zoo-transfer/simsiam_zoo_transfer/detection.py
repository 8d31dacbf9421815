"""A ResNet for torchvision's detectors and segmentation models, by the keys of their body."""

from __future__ import annotations

from pathlib import Path

import torch
import torchvision

from simsiam_zoo.plugin import ExportFormat, ExportSource, InputError

CLASSES = {"fasterrcnn": "FasterRCNN", "maskrcnn": "MaskRCNN"}
_RESNETS = ("resnet", "resnext", "wide_resnet")


class DetectionFormat(ExportFormat):
    """A state dict that the body of torchvision's ResNet FPN loads strictly; it has no classifier.

    The backbones of torchvision's segmentation models (`deeplabv3_resnet50`, `fcn_resnet50`) have
    the same keys. BN layers are ones that can be trained, not torchvision's frozen ones: the
    statistics of a network that learned without labels have to be adapted (arXiv:1911.05722,
    section 4.2).

    Args:
        model: the detector that the printed Python builds.
        classes: its number, the background included.
    """

    file = "detection.pth"

    def __init__(self, *, model: str, classes: int) -> None:
        self.model, self.classes = model, classes

    def write(self, source: ExportSource, path: Path) -> None:
        """Raises InputError where torchvision has no such ResNet."""
        made = source.made_by_timm()
        known = [n for n in torchvision.models.list_models() if n.startswith(_RESNETS)]
        if made.name not in known or made.kwargs:
            raise InputError(
                "torchvision's detectors have no body like the backbone"
                f" {source.recipe.backbone.name}",
                f"They take {', '.join(known)}.",
            )
        if path.suffix not in (".pth", ".pt"):
            raise InputError(f"a state dict is written as .pth or .pt, not {path.name}")
        state = source.backbone.state_dict()
        torch.save({key: value.contiguous() for key, value in state.items()}, path)

    def code(self, source: ExportSource, path: Path) -> str:
        """It states the run's mean and std, by which the detector normalises images in 0..1."""
        made, data = source.made_by_timm(), source.recipe.data
        body = [change.replace("model.", "backbone.body.", 1) for change in made.changes]
        return "\n".join(
            [
                "import torch",
                "import torchvision",
                "from torchvision.models.detection.backbone_utils import resnet_fpn_backbone",
                f"backbone = resnet_fpn_backbone(backbone_name={made.name!r}, weights=None,"
                " norm_layer=torch.nn.BatchNorm2d, trainable_layers=5)",
                *body,
                f"backbone.body.load_state_dict(torch.load({str(path)!r}, weights_only=True))",
                f"model = torchvision.models.detection.{CLASSES[self.model]}(backbone,"
                f" num_classes={self.classes}, image_mean={list(data.mean)},"
                f" image_std={list(data.std)})",
                "model.eval()",
                "features = model.backbone.body(images)['3'].mean((2, 3))",
            ]
        )
