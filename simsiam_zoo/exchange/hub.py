"""A folder as the Hugging Face Hub takes it: weights, timm's config.json, a model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm

from simsiam_zoo.exchange.card import model_card
from simsiam_zoo.exchange.formats import Code, Source, timm_code, write_safetensors
from simsiam_zoo.model.backbones import TimmRecipe
from simsiam_zoo.runtime.folders import atomic_write_text

WEIGHTS = "model.safetensors"
"""The name that timm looks for on the Hub."""


def write_hub(source: Source, path: Path) -> Code:
    """Write the folder `path`: model.safetensors, README.md and, if it can be, config.json.

    timm's config.json cannot say how a module was changed (VGG without its fc layers, the ResNets
    for 32 px): such a folder has none, and the card has the Python instead.

    Raises:
        InputError: the backbone is none of timm's.
    """
    made = source.of_timm("hub")
    path.mkdir()
    write_safetensors(source, path / WEIGHTS)
    if made.changes:
        code = timm_code(made, file=WEIGHTS)
    else:
        atomic_write_text(path / "config.json", json.dumps(timm_config(source, made), indent=2))
        code = _local_code
    atomic_write_text(path / "README.md", model_card(source, made, WEIGHTS))
    return code


def timm_config(source: Source, made: TimmRecipe) -> dict[str, Any]:
    """What timm's `create_model("hf-hub:...")` and `("local-dir:...")` read.

    The images are described as training saw them, so that timm's transforms do the same.
    """
    data, backbone = source.recipe.data, source.backbone
    known: Any = timm.get_pretrained_cfg(made.name)
    own = known.to_dict() if known is not None else {}
    return {
        "architecture": made.name,
        "num_classes": 0,
        "num_features": getattr(backbone, "num_features", None),
        "model_args": dict(made.kwargs),
        "pretrained_cfg": {
            "num_classes": 0,
            "input_size": [3, data.image_size, data.image_size],
            "fixed_input_size": bool(own.get("fixed_input_size", False)),
            "mean": list(data.mean),
            "std": list(data.std),
            "crop_pct": source.recipe.evaluation.crop,
            "crop_mode": "center",
            "interpolation": "bilinear",
            "pool_size": own.get("pool_size"),
            "first_conv": own.get("first_conv"),
            "classifier": own.get("classifier"),
        },
    }


def _local_code(path: Path) -> str:
    model = f"timm.create_model({f'local-dir:{path}'!r}, pretrained=True)"
    return "\n".join(
        ["import timm", f"model = {model}", "model.eval()", "features = model(images)"]
    )
