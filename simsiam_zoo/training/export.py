"""`backbone.safetensors`: the trained backbone, as timm loads it, and what it takes to rebuild it.

The file's metadata are texts; what is no plain word is JSON:

    simsiam_zoo.backbone   the component's id
    simsiam_zoo.params     its parameters
    simsiam_zoo.data       image_size, mean and std of the images that it was trained on
    simsiam_zoo.identity   of the run
    simsiam_zoo.python     Python that makes the module, of timm alone, to be read by people
    simsiam_zoo.timm       timm's name and arguments, and how timm's module was changed

The last two are there for timm's models only.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save
from torch import Tensor, nn

from simsiam_zoo.model.backbones import timm_recipe
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.folders import atomic_write


def write_backbone(backbone: nn.Module, recipe: Recipe, identity: str, path: Path) -> None:
    """Write a backbone's weights with the metadata that rebuild it (see the module)."""
    metadata = backbone_metadata(backbone, recipe, identity)
    with atomic_write(path) as file:
        file.write(save(plain_state(backbone), metadata))


def plain_state(backbone: nn.Module) -> dict[str, Tensor]:
    """The state dict on the CPU, contiguous, without shared memory, which safetensors refuses."""
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in backbone.state_dict().items():
        plain = value.detach().cpu().contiguous()
        memory = plain.untyped_storage().data_ptr()
        state[key] = plain.clone() if memory in seen else plain
        seen.add(memory)
    return state


def backbone_metadata(backbone: nn.Module, recipe: Recipe, identity: str) -> dict[str, str]:
    """What the file says of its weights."""
    part, data = recipe.part("backbone"), recipe.data
    images = {"image_size": data.image_size, "mean": list(data.mean), "std": list(data.std)}
    metadata = {
        "format": "pt",
        "simsiam_zoo.backbone": part.id,
        "simsiam_zoo.params": json.dumps(dict(part.params)),
        "simsiam_zoo.data": json.dumps(images),
        "simsiam_zoo.identity": identity,
    }
    if (made := timm_recipe(backbone)) is not None:
        of_timm = {"name": made.name, "kwargs": made.kwargs, "changes": made.changes}
        metadata |= {
            "simsiam_zoo.python": made.code,
            "simsiam_zoo.timm": json.dumps(of_timm),
        }
    return metadata
