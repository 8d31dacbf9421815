"""Fine-tuning: the whole network is trained on the labels, from its weights on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from simsiam_zoo.plugin import FeatureSplits, Score, check_labels, make_score
from simsiam_zoo_transfer.training import (
    REFERENCE_BATCH,
    Autocast,
    Course,
    fit,
    linear_layer,
    open_images,
    parameter_groups,
)

DEFAULTS = {"sgd": (0.05, 0.0), "adamw": (0.0005, 0.05)}
"""Base lr and weight decay: of SimCLR's fine-tuning (arXiv:2002.05709, appendix B.5: Nesterov
momentum, 30 epochs on a tenth of the labels), and of MAE's released code for ViT-B
(arXiv:2111.06377), whose lr of each layer, mixup and erasing are left out."""


class FineTuneProtocol:
    """All layers and a new linear one trained on random resized crops, mirrored or not.

    The lr is base x batch / 256, with a linear warm-up and a cosine. The number of epochs is fixed
    and the last one is tested, on centre views: no test image chooses anything. At a run's end the
    untrained network is trained in the same way, from its random weights.

    Args:
        optimizer: `sgd`, Nesterov momentum 0.9, or `adamw`.
        lr, wd: None takes those of `DEFAULTS`. Norms and biases have no weight decay.
        head_lr: of the new layer; None: `lr`.
        epochs, warmup, batch, min_scale, flip_p, seed: as in `Course`.
    """

    version = 1
    wants_images = True

    def __init__(
        self,
        *,
        optimizer: str,
        lr: float | None,
        head_lr: float | None,
        wd: float | None,
        epochs: int,
        warmup: int,
        batch: int,
        min_scale: float,
        flip_p: float,
        seed: int,
    ) -> None:
        plain_lr, plain_wd = DEFAULTS[optimizer]
        self.optimizer = optimizer
        self.lr = plain_lr if lr is None else lr
        self.head_lr = self.lr if head_lr is None else head_lr
        self.wd = plain_wd if wd is None else wd
        self.course = Course(
            "finetune", self.version, epochs, warmup, batch, min_scale, flip_p, seed
        )

    def __call__(self, splits: FeatureSplits) -> list[Score]:
        """Train on the training images, classify the test images.

        InputError: no labels, only features, a batch that the ranks cannot share, or it diverged.
        """
        check_labels(splits.train, splits.test, splits.classes)
        images, batch = open_images(splits, self.course.name, self.course.batch)
        head = linear_layer(splits.train.x.shape[1], splits.classes, self.course.seed)
        runtime = images.runtime
        head = head.to(runtime.device, runtime.dtype)
        model = _Classifier(images.network(), head, runtime.autocast)
        scale = batch / REFERENCE_BATCH
        groups = parameter_groups(model.backbone, self.lr * scale, self.wd)
        groups += parameter_groups(model.head, self.head_lr * scale, self.wd)
        optimizer: torch.optim.Optimizer
        if self.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True)
        else:
            optimizer = torch.optim.AdamW(groups, lr=0.0)
        ranked, details = fit(self.course, splits, model, optimizer)
        stated = [f"{self.optimizer}, lr={self.lr:g}"]
        stated += [f"head_lr={self.head_lr:g}"] if self.head_lr != self.lr else []
        name = f"finetune ({', '.join(stated)}, batch={batch}, epochs={self.course.epochs})"
        own = {"optimizer": self.optimizer, "lr": self.lr, "head_lr": self.head_lr, "wd": self.wd}
        details = {"frozen": False, **own, **details}
        return [make_score(name, self.version, ranked, splits.test.labels, splits.classes, details)]


class _Classifier(nn.Module):
    """[N, C, S, S] → logits [N, classes]; the new layer is computed in full precision."""

    def __init__(self, backbone: nn.Module, head: nn.Linear, autocast: Autocast) -> None:
        super().__init__()
        self.backbone, self.head, self.autocast = backbone, head, autocast

    def forward(self, x: Tensor) -> Tensor:
        """The backbone under the run's autocast, then the layer."""
        with self.autocast():
            features = self.backbone(x)
        logits: Tensor = self.head(features.to(self.head.weight.dtype))
        return logits
