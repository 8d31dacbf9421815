"""An attentive probe: a learned query pools the frozen tokens, and a linear layer classifies."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simsiam_zoo.plugin import FeatureSplits, InputError, Score, check_labels, make_score
from simsiam_zoo_transfer.training import (
    REFERENCE_BATCH,
    Autocast,
    Course,
    fit,
    linear_layer,
    open_images,
    parameter_groups,
)


class AttentiveProbeProtocol:
    """Cross-attention of one learned query to all tokens of the frozen network, and a linear layer.

    Tokens are what the network's `forward_features` gives, as every model of timm has it: [N, T, D]
    of a ViT, or a map [N, D, H, W] of a ResNet, whose H x W places are the tokens. They are
    computed for every view anew and never stored: those of ImageNet by ViT-S would take 390 GB.
    Trained by AdamW on random resized crops, mirrored or not, the lr base x batch / 256 with a
    cosine; tested on centre views.

    Args:
        heads: of the attention, by which D can be divided.
        lr, wd: base lr, and weight decay of the matrices.
        epochs, warmup, batch, min_scale, flip_p, seed: as in `Course`.
    """

    version = 1
    wants_images = True

    def __init__(
        self,
        *,
        heads: int,
        lr: float,
        wd: float,
        epochs: int,
        warmup: int,
        batch: int,
        min_scale: float,
        flip_p: float,
        seed: int,
    ) -> None:
        self.heads, self.lr, self.wd = heads, lr, wd
        self.course = Course(
            "attentive-probe", self.version, epochs, warmup, batch, min_scale, flip_p, seed
        )

    def __call__(self, splits: FeatureSplits) -> list[Score]:
        """Train on the training images, classify the test images.

        InputError: no labels, only features, a network without tokens, heads that do not fit, a
        batch that the ranks cannot share, or it diverged.
        """
        check_labels(splits.train, splits.test, splits.classes)
        images, batch = open_images(splits, self.course.name, self.course.batch)
        network, runtime = images.network().requires_grad_(False), images.runtime
        x = torch.zeros(1, *images.shape, device=runtime.device, dtype=runtime.dtype)
        with torch.no_grad():
            _, count, width = tokens_of(network, x).shape
        if width % self.heads:
            raise InputError(
                f"the network's tokens are {width} wide, and {self.heads} heads cannot share that",
                "Say attentive-probe:heads=N, N dividing it.",
            )
        pool = AttentivePool(width, splits.classes, self.heads, self.course.seed)
        model = _Probe(network, pool.to(runtime.device, runtime.dtype), runtime.autocast)
        groups = parameter_groups(model.pool, self.lr * batch / REFERENCE_BATCH, self.wd)
        ranked, details = fit(self.course, splits, model, torch.optim.AdamW(groups, lr=0.0))
        name = f"attentive-probe (lr={self.lr:g}, batch={batch}, epochs={self.course.epochs})"
        own = {"lr": self.lr, "wd": self.wd, "heads": self.heads}
        details = {**own, "tokens": count, "width": width, **details}
        return [make_score(name, self.version, ranked, splits.test.labels, splits.classes, details)]


def tokens_of(network: nn.Module, x: Tensor) -> Tensor:
    """The tokens [N, T, D] of images; InputError: the network has none."""
    if not callable(forward := getattr(network, "forward_features", None)):
        raise InputError(
            f"the backbone, a {type(network).__name__}, has no forward_features that gives tokens",
            "Use a model of timm's, or the protocol linear, which takes pooled features.",
        )
    tokens: Tensor = forward(x)
    if tokens.ndim == 4:  # a map; Swin and its kin have the channels last
        last = getattr(network, "output_fmt", "NCHW") == "NHWC"
        tokens = tokens.flatten(1, 2) if last else tokens.flatten(2).transpose(1, 2)
    if tokens.ndim != 3:
        raise InputError(f"forward_features of the backbone gives {[*tokens.shape]}: no tokens")
    return tokens


class AttentivePool(nn.Module):
    """Tokens [N, T, D] → logits [N, classes].

    LayerNorm, then softmax(q K^T / sqrt(D / heads)) V for each head, q a parameter; no projection
    after it, as in AIM (arXiv:2401.08541), which the linear layer makes needless.
    """

    def __init__(self, width: int, classes: int, heads: int, seed: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.key, self.value = (linear_layer(width, width, seed) for _ in range(2))
        self.query = nn.Parameter(torch.empty(width))
        self.head = linear_layer(width, classes, seed)
        generator = torch.Generator().manual_seed(seed + 1)
        for weight in (self.key.weight, self.value.weight):
            nn.init.trunc_normal_(weight, std=width**-0.5, generator=generator)
        nn.init.trunc_normal_(self.query, std=0.02, generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """The logits."""
        n, t, width = tokens.shape
        shape = n, t, self.heads, width // self.heads
        x = self.norm(tokens)
        key, value = (layer(x).view(shape).transpose(1, 2) for layer in (self.key, self.value))
        query = self.query.view(1, self.heads, 1, -1).expand(n, -1, -1, -1)
        pooled = F.scaled_dot_product_attention(query, key, value)  # [N, heads, 1, D / heads]
        logits: Tensor = self.head(pooled.reshape(n, width))
        return logits


class _Probe(nn.Module):
    """[N, C, S, S] → logits [N, classes]; the network is no submodule: not trained, not saved."""

    def __init__(self, network: nn.Module, pool: AttentivePool, autocast: Autocast) -> None:
        super().__init__()
        self.pool, self.autocast, self._frozen = pool, autocast, [network.eval()]

    def forward(self, x: Tensor) -> Tensor:
        """The tokens under the run's autocast, without gradient; the rest in full precision."""
        with torch.no_grad(), self.autocast():
            tokens = tokens_of(self._frozen[0], x)
        logits: Tensor = self.pool(tokens.to(self.pool.query.dtype))
        return logits
