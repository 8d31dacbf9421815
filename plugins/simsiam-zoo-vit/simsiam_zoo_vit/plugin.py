"""What this package supplies. No torch here: the bodies are imported when a model is built."""

from __future__ import annotations

from collections.abc import Iterator

from simsiam_zoo.plugin import Component, Param, hookimpl

MOCO_V3 = "arXiv:2104.02057"
_HERE = "simsiam_zoo_vit"


@hookimpl
def zoo_components() -> Iterator[Component]:
    """A backbone, two presets and a study."""
    yield Component(
        "backbone",
        "vit",
        target=f"{_HERE}.vit:vit",
        summary="timm's ViT of any size with MoCo v3's start: positions and patch embedding fixed",
        params=(
            Param("patch_size", int, 8, "Side of a patch in pixels; it divides the image's", min=1),
            Param("embed_dim", int, 96, "Width; a multiple of 4 and of num_heads", min=4),
            Param("depth", int, 4, "Transformer blocks", min=1),
            Param("num_heads", int, 3, "Heads of the attention", min=1),
            Param("freeze_patch_embed", bool, True, "The patches' projection stays random"),
            Param(
                "pool",
                str,
                "token",
                "The features: the class token, or the patches' mean",
                choices=("token", "avg"),
            ),
            Param("drop_path_rate", float, 0.0, "Stochastic depth", 0, 1),
        ),
        reference=f"{MOCO_V3} section 4.2",
    )
    for name, summary in (
        ("vit-mnist-5k", "5,000 MNIST images, a tiny ViT: minutes on two cores"),
        ("vit-imagenet", "SimSiam with MoCo v3's ViT-S/16 and its AdamW, 300 epochs at batch 4096"),
    ):
        yield Component("preset", name, f"{_HERE}:{name}.toml", summary, reference=MOCO_V3)
    yield Component(
        "study",
        "vit",
        target=f"{_HERE}:vit.toml",
        summary="The patch embedding frozen or trained, no warm-up, no stop-gradient; tuned",
        reference=f"{MOCO_V3} section 4",
    )
