"""timm's ViT with the start that MoCo v3 gives it."""

from __future__ import annotations

import math
from typing import Any

import timm
import torch
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from torch import nn

from simsiam_zoo.plugin import InputError, TimmRecipe

_TIMM = "vit_small_patch16_224"


def vit(
    *,
    image_size: int,
    patch_size: int,
    embed_dim: int,
    depth: int,
    num_heads: int,
    freeze_patch_embed: bool,
    pool: str,
    drop_path_rate: float,
    channels: int = 3,
) -> nn.Module:
    """A ViT whose positions are fixed, and whose patch projection may be (arXiv:2104.02057).

    [N, channels, H, W] → [N, embed_dim]. As in the authors' code positions are sines and cosines in
    two dimensions, none of the class token; q, k, v, every other fc and the patch projection start
    by Xavier's uniform, each of q, k and v as a matrix of its own; biases are 0.
    `freeze_patch_embed` is their remedy for steps that throw the training back: no gradient for the
    projection (their section 4.2).

    InputError: the patches do not tile the image, or the heads not the width.
    """
    if image_size % patch_size:
        raise InputError(
            f"patches of {patch_size} px do not tile an image of {image_size} px",
            f"Choose backbone.patch_size so that it divides data.image_size ({image_size}).",
        )
    if embed_dim % (step := math.lcm(4, num_heads)):
        raise InputError(
            f"embed_dim {embed_dim} is no multiple of 4 and of num_heads {num_heads}",
            f"Choose another, {step * max(1, round(embed_dim / step))} for example.",
        )
    kwargs: dict[str, Any] = {
        "img_size": image_size,
        "patch_size": patch_size,
        "embed_dim": embed_dim,
        "depth": depth,
        "num_heads": num_heads,
        "global_pool": pool,
        **({} if channels == 3 else {"in_chans": channels}),
    }
    model: Any = timm.create_model(
        _TIMM, num_classes=0, weight_init="moco", drop_path_rate=drop_path_rate, **kwargs
    )
    grid = build_sincos2d_pos_embed(model.patch_embed.grid_size, embed_dim)  # [patches, width]
    with torch.no_grad():
        model.pos_embed.zero_()
        model.pos_embed[0, model.num_prefix_tokens :].copy_(grid)
    model.pos_embed.requires_grad_(False)
    projection = model.patch_embed.proj
    bound = math.sqrt(6 / (channels * patch_size**2 + embed_dim))
    nn.init.uniform_(projection.weight, -bound, bound)
    nn.init.zeros_(projection.bias)
    projection.requires_grad_(not freeze_patch_embed)
    model.zoo_recipe = TimmRecipe(_TIMM, kwargs)
    found: nn.Module = model
    return found
