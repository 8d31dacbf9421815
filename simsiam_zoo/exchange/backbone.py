"""A backbone from nothing but its `.safetensors` file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from simsiam_zoo.catalog import catalog
from simsiam_zoo.errors import DataError, InputError, PluginError


def load_backbone(path: Path | str) -> nn.Module:
    """The backbone in a `.safetensors` file of a run or of `simsiam-zoo export`.

    The file's metadata name a component of the catalogue, its parameters and the image size; that
    component makes the module. Nothing in the file is executed.

    Args:
        path: the file.

    Returns:
        The backbone, [N, 3, H, W] → features [N, in_dim], on the CPU and in eval mode. Its
        attribute `zoo_data` holds `image_size`, `mean` and `std` of the images it was trained on.

    Raises:
        InputError: there is no such file, or it is not one of ours.
        DataError: it is damaged, or its weights do not fit what its metadata say.
        PluginError: the backbone's component is not installed here.
    """
    path = Path(path)
    state, metadata = _read(path)
    try:
        name = metadata["simsiam_zoo.backbone"]
        params, data = (json.loads(metadata[f"simsiam_zoo.{key}"]) for key in ("params", "data"))
        size = int(data["image_size"])
        params = {key: value for key, value in params.items() if value is not None}
    except KeyError:
        raise InputError(
            f"{path} does not say which backbone its weights are of",
            "Name a file that simsiam-zoo wrote, or read it with: simsiam-zoo import.",
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"the metadata of {path} are damaged: {error}") from None
    try:
        part = catalog().resolve("backbone", name, params)
    except InputError as error:
        raise PluginError(
            f"{path} holds the backbone {name}, which there is none of here: {error.what}"
        ) from None
    with torch.random.fork_rng(devices=[]):
        backbone: nn.Module = part.create(image_size=size)
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        what = str(error).partition("\n")[2].strip().partition("\n")[0]
        raise DataError(f"{path} does not fit its backbone {name}: {what}") from None
    backbone.__dict__["zoo_data"] = data
    return backbone.eval()


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return state, dict(file.metadata() or {})
    except Exception as error:  # the reader's own class, which no module of it names publicly
        raise DataError(f"{path} cannot be read as safetensors: {error}") from None
