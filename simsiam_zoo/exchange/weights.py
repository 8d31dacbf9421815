"""Weights in files: a backbone from its own file, and checkpoints of other makers.

docs/exchange.md names the layouts. In that of SimSiam's original release, `module.encoder.*` is
torchvision's ResNet with the projector in the place of its `fc`, and `module.predictor.*` the
predictor. Else it is a backbone's state dict, its keys behind what a training library put there.

Nothing is unpickled but tensors and plain values (`weights_only`).
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from simsiam_zoo.catalog import Resolved, catalog
from simsiam_zoo.errors import DataError, InputError, PluginError
from simsiam_zoo.evaluation.target import below
from simsiam_zoo.runtime.checkpoint import load_checkpoint, load_into, read_safetensors

StateDict = dict[str, Tensor]
"""A state dict: key → tensor."""

_TABLES = ("state_dict", "model", "student")
_COMPILED = re.compile(r"(^|(?<=\.))_orig_mod\.")  # torch.compile, around a model or inside one
_RESNET = re.compile(r"(wide_)?resnet\d+(_2)?|resnext\d+_\d+x\d+d")
_HEAD = re.compile(r"(fc|classifier|head|head_dist|pre_logits|AuxLogits|aux\d)\.")
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")
_COPIES = re.compile(r"(^|[._])(teacher|encoder_k|momentum|target|ema)([._]|$)")
"""Prefixes of a second network that follows the first; the first is the one that was trained."""


@dataclass(frozen=True)
class Weights:
    """What a checkpoint holds, by the parts of a run: the part's name → its state dict.

    `arch`: the backbone's name or id, if the file states it; `settings`: what else it says of the
    recipe.
    """

    arch: str | None
    parts: dict[str, StateDict]
    settings: dict[str, object] = field(default_factory=dict)


def load_backbone(path: Path | str) -> nn.Module:
    """The backbone in a `.safetensors` file of a run or of `simsiam-zoo export`.

    The component that the file's metadata name makes the module. Nothing in it is executed.

    Returns:
        The backbone, [N, C, H, W] → features [N, in_dim], on the CPU and in eval mode. Its
        attribute `zoo_data` holds `image_size`, `mean` and `std` of the images it was trained on.

    Raises:
        InputError: there is no such file, or it is not one of ours.
        DataError: it is damaged, or its weights do not fit what its metadata say.
        PluginError: the backbone's component is not installed here.
    """
    path = Path(path)
    _refuse_missing(path)
    state, metadata = read_safetensors(path)
    if (stated := _stated_backbone(path, metadata)) is None:
        raise InputError(
            f"{path} does not say which backbone its weights are of",
            "Name a file that simsiam-zoo wrote, or read it with: simsiam-zoo import.",
        )
    part, data = stated
    with torch.random.fork_rng(devices=[]):
        backbone: nn.Module = part.create(image_size=data["image_size"], channels=len(data["mean"]))
    load_into(backbone, state, f"{path} does not fit its backbone {part.id}")
    backbone.__dict__["zoo_data"] = data
    if isinstance(config := getattr(backbone, "pretrained_cfg", None), dict):  # of timm's models
        size, mean, std = data["image_size"], tuple(data["mean"]), tuple(data["std"])
        config.update(input_size=(len(mean), size, size), test_input_size=None, mean=mean, std=std)
    return backbone.eval()


def _stated_backbone(
    path: Path, metadata: Mapping[str, str]
) -> tuple[Resolved, dict[str, Any]] | None:
    """The component that a file's metadata name, and the images; None where they are not ours."""
    if (name := metadata.get("simsiam_zoo.backbone")) is None:
        return None
    try:
        params, data = (json.loads(metadata[f"simsiam_zoo.{key}"]) for key in ("params", "data"))
        data = {key: data[key] for key in ("image_size", "mean", "std")}
        data["image_size"] = int(data["image_size"])
        params = {key: value for key, value in params.items() if value is not None}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"the metadata of {path} are damaged: {error}") from None
    try:
        part = catalog().resolve("backbone", name, params)
    except InputError as error:
        raise PluginError(
            f"{path} holds the backbone {name}, which is not installed here: {error.what}"
        ) from None
    return part, data


def _refuse_missing(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"there is no file {path}")


def read_weights(path: Path) -> Weights:
    """Read a checkpoint, and tell what its layout is.

    InputError: there is no such file, or no layout that is known here. DataError: it is damaged, or
    holds more than tensors and plain values. PluginError: its component is not installed here.
    """
    _refuse_missing(path)
    if path.suffix == ".safetensors":
        state, metadata = read_safetensors(path)
        if (stated := _stated_backbone(path, metadata)) is not None:
            part, data = stated
            params = {key: value for key, value in part.params.items() if value is not None}
            settings: dict[str, object] = {f"backbone.{key}": params[key] for key in params}
            settings["data.image_size"] = data["image_size"]
            if (channels := len(data["mean"])) != 3:
                settings |= {"data.channels": channels}
                settings |= {f"data.{key}": data[key] for key in ("mean", "std")}
            return Weights(part.id, {"backbone": state}, settings)
        table: dict[str, Any] = dict(state)
    else:
        table = load_checkpoint(path, harmless=_harmless())
    if "siamese" in table:
        raise InputError(
            f"{path} is a checkpoint of simsiam-zoo",
            "It needs no import: name the run's folder.",
        )
    arch = table.get("arch", getattr(table.get("args"), "arch", None))
    inner = next((table[key] for key in _TABLES if isinstance(table.get(key), dict)), table)
    tensors = ((key, value) for key, value in inner.items() if isinstance(value, Tensor))
    state = {key: value for key, value in tensors if isinstance(key, str)}
    others = [repr(key) for key in inner if key not in state]
    if others or not state:
        what = f"holds {_first(others)}, and no state dict" if others else "is empty"
        raise InputError(
            f"{path} {what}",
            "Name a file with tensors by their keys, plain or under 'state_dict' or 'model'.",
        )
    state = {_COMPILED.sub("", key): value for key, value in state.items()}
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    name = arch if isinstance(arch, str) else None
    if all(any(key.startswith(part) for key in state) for part in ("encoder.", "predictor.")):
        return _simsiam(state, name, path)
    state = {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items()}
    return Weights(name, {"backbone": state})


def _harmless() -> list[Any]:
    """Types that training scripts save beside tensors and that execute nothing when they are read:
    a Namespace is a bag of attributes, a path is its words, a numpy scalar a type and its bytes.
    """
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")  # numpy 2 and 1
    types = {type(np.dtype(code)) for code in "?bhilqBHILQefdgFDGSU"}
    return [argparse.Namespace, PosixPath, np.dtype, *types, *((scalar, name) for name in names)]


def below_prefix(weights: StateDict, model: StateDict) -> tuple[StateDict, str, list[str]]:
    """The weights behind a prefix, by the keys after it; the prefix; the other keys' first words.

    The prefix is the one behind which most of the model's keys are found; of two networks that
    have as many, the one that was trained rather than its slow copy, then the file's first.
    """
    hits: Counter[str] = Counter()
    for key in weights:
        starts = [0, *(place + 1 for place, letter in enumerate(key) if letter == ".")]
        hits.update([key[:start] for start in starts if key[start:] in model][:1])
    best = max(hits, key=lambda p: (hits[p], _COPIES.search(p) is None), default="")
    behind = below(best, weights)
    others = dict.fromkeys(key.partition(".")[0] for key in weights if not key.startswith(best))
    return behind, best, [*others]


def fit_weights(weights: StateDict, model: StateDict, part: str, path: Path) -> StateDict:
    """The weights as a part's `load_state_dict` takes them; a backbone's without a classifier.

    Raises InputError: keys are missing or unknown, shapes differ, or a value is not finite; the
    first ones are named.
    """
    # Older checkpoints have no counts of batches.
    counts = {key: value for key, value in model.items() if key.endswith("num_batches_tracked")}
    found = {**counts, **weights}
    missing = [key for key in model if key not in found]
    extra = [key for key in found if key not in model]
    if part == "backbone":
        extra = [key for key in extra if not _HEAD.match(key)]
    problems = [f"lacks {_first(missing)}"] * bool(missing)
    problems += [f"has {_first(extra)}, which it has no place for"] * bool(extra)
    if not problems:
        differ = [key for key in model if found[key].shape != model[key].shape]
        shapes = (f"{key} {list(found[key].shape)}, not {list(model[key].shape)}" for key in differ)
        problems = [f"has {_first([*shapes], 1)}"] * bool(differ)
    if not problems:
        wild = [key for key in model if not found[key].isfinite().all()]
        problems = [f"has values that are not finite in {_first(wild)}"] * bool(wild)
    if problems:
        raise InputError(
            f"{path} does not fit the {part}: it {' and '.join(problems)}",
            "Is it another architecture (--backbone) or image size (--set data.image_size)?",
        )
    return {key: found[key] for key in model}


def _simsiam(state: StateDict, arch: str | None, path: Path) -> Weights:
    """The original release's layout, in the names and with the arithmetic of a run's model."""
    if arch is None or not _RESNET.fullmatch(arch):
        says = "does not say its arch" if arch is None else f"says that its arch is {arch!r}"
        raise InputError(
            f"{path} has the layout of SimSiam's original release, but {says}",
            "That layout is of torchvision's ResNets: resnet18, resnet50 and their kin.",
        )
    encoder, predictor = below("encoder.", state), below("predictor.", state)
    stray = [key for key in state if not key.startswith(("encoder.", "predictor."))]
    if stray:
        raise InputError(f"{path} has {_first(stray)}, which belongs to no part of SimSiam")
    projector = below("fc.", encoder)
    backbone = {key: value for key, value in encoder.items() if not key.startswith("fc.")}
    layers = sorted(int(key.split(".")[0]) for key, x in projector.items() if x.ndim == 2)
    hidden = [key for key, x in predictor.items() if x.ndim == 2]
    if not layers or len(hidden) != 2:
        raise InputError(
            f"{path} lacks the {'predictor' if layers else 'projector'} that SimSiam's original"
            " release has: fc layers with BN between"
        )
    last = layers[-1]
    settings: dict[str, object] = {
        "projector": "mlp",
        "projector.layers": len(layers),
        "projector.hidden_dim": len(projector[f"{layers[0]}.weight"]),
        "projector.out_dim": len(projector[f"{last}.weight"]),
        "predictor": "mlp",
        "predictor.hidden_dim": len(predictor[sorted(hidden)[0]]),
    }
    parts = {"backbone": backbone, "projector": _folded(projector, last), "predictor": predictor}
    return Weights(arch, parts, settings)


def _folded(projector: StateDict, last: int) -> StateDict:
    """The projector without the bias of its fc number `last`, which is moved into the BN after it.

    BN(Wx + b) subtracts the running mean m: (Wx + b) - m = Wx - (m - b). In training the bias has
    no effect at all, since the batch's mean has it too.
    """
    folded = dict(projector)
    bias = folded.pop(f"{last}.bias", None)
    mean = f"{last + 1}.running_mean"
    if bias is not None and mean in folded:
        folded[mean] = folded[mean] - bias
    return folded


def _first(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
