"""`backbone.safetensors`: the trained backbone, as timm loads it."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save

from simsiam_zoo.components.backbones import timm_recipe
from simsiam_zoo.runtime.folders import atomic_write
from simsiam_zoo.training.setup import Setup


def save_backbone(setup: Setup, path: Path) -> None:
    """Write the backbone's weights under the keys that its library knows them by.

    The file's metadata says what it is: the component, the run's identity and, for timm's models,
    the Python that makes the module which these weights fit.
    """
    backbone = setup.siamese.backbone
    state = {key: value.detach().cpu().contiguous() for key, value in backbone.state_dict().items()}
    metadata = {
        "format": "pt",
        "simsiam_zoo.backbone": setup.recipe.part("backbone").id,
        "simsiam_zoo.identity": setup.identity,
    }
    if (made := timm_recipe(backbone)) is not None:
        metadata["simsiam_zoo.python"] = made.code
    with atomic_write(path) as file:
        file.write(save(state, metadata))
