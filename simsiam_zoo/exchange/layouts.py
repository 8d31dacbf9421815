"""Checkpoints of other makers, read into the names that a run's model has.

Two layouts are known:

- *simsiam*, the original release's: a table with `arch` and `state_dict`; the keys
  `module.encoder.*` are torchvision's ResNet, with the projector in the place of its `fc`, and
  `module.predictor.*` is the predictor;
- *backbone*: a state dict of timm or torchvision, plain or in a table under `state_dict` or
  `model`, with or without `module.` before each key; `.safetensors` too.

Nothing is unpickled but tensors and plain values (`weights_only`).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.runtime.checkpoint import load_checkpoint

State = dict[str, Tensor]

_TABLES = ("state_dict", "model")
_RESNET = re.compile(r"(wide_)?resnet\d+(_2)?|resnext\d+_\d+x\d+d")
_HEAD = re.compile(r"(fc|classifier|head|head_dist|pre_logits|AuxLogits|aux\d)\.")
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


@dataclass(frozen=True)
class Weights:
    """What a checkpoint holds, by the parts of a run.

    Attributes:
        layout: `simsiam` or `backbone`.
        arch: what the file calls its architecture; None where it does not say.
        parts: the part's name → its state dict.
        settings: what the weights' shapes say of the recipe.
    """

    layout: str
    arch: str | None
    parts: dict[str, State]
    settings: dict[str, object] = field(default_factory=dict)


def read_weights(path: Path) -> Weights:
    """Read a checkpoint, and tell what its layout is.

    Raises:
        InputError: there is no such file, or no layout that is known here.
        DataError: it is damaged, or holds more than tensors and plain values.
    """
    table = _read(path)
    if "siamese" in table:
        raise InputError(
            f"{path} is a checkpoint of simsiam-zoo",
            "It needs no import: name the run's folder.",
        )
    arch = table.get("arch")
    inner = next((table[key] for key in _TABLES if isinstance(table.get(key), dict)), table)
    state = {key: value for key, value in inner.items() if isinstance(value, Tensor)}
    others = [repr(key) for key in inner if key not in state]
    if others or not state:
        what = f"holds {_first(others)}, and no state dict" if others else "is empty"
        raise InputError(
            f"{path} {what}",
            "Name a file with tensors by their keys, plain or under 'state_dict' or 'model'.",
        )
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    name = arch if isinstance(arch, str) else None
    if any(key.startswith("encoder.") for key in state):
        return _simsiam(state, name, path)
    state = {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items()}
    return Weights("backbone", name, {"backbone": state})


def fit(weights: State, model: State, part: str, path: Path, headless: bool) -> State:
    """The weights as a part's `load_state_dict` takes them.

    Args:
        weights: what the file has of the part.
        model: the part's own state dict.
        part: for messages.
        path: for messages.
        headless: drop a classifier, which the part has none of.

    Raises:
        InputError: keys are missing or unknown, or shapes differ; the first ones are named.
    """
    found = dict(weights)
    for key, value in model.items():
        if key.endswith("num_batches_tracked"):  # older checkpoints have none
            found.setdefault(key, value)
    extra = [key for key in found if key not in model]
    if headless:
        extra = [key for key in extra if not _HEAD.match(key)]
    missing = [key for key in model if key not in found]
    problems = [f"lacks {_first(missing)}"] * bool(missing)
    problems += [f"has {_first(extra)}, which it has no place for"] * bool(extra)
    differ = [key for key in model if key in found and found[key].shape != model[key].shape]
    if differ and not problems:
        key = differ[0]
        problems = [f"has {key} {list(found[key].shape)}, not {list(model[key].shape)}"]
        problems[0] += f" ({len(differ) - 1} more differ)" if len(differ) > 1 else ""
    if problems:
        raise InputError(
            f"{path} does not fit the {part}: it {' and '.join(problems)}",
            "Is it another architecture (--backbone) or image size (--set data.image_size)?",
        )
    return {key: found[key] for key in model}


def file_digest(path: Path) -> str:
    """sha256 of the file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    if path.suffix != ".safetensors":
        return load_checkpoint(path)
    try:
        return dict(load_file(path))
    except Exception as error:  # the reader's own class, which no module of it names publicly
        raise DataError(f"{path} cannot be read as safetensors: {error}") from None


def _simsiam(state: State, arch: str | None, path: Path) -> Weights:
    """The original release's layout, in the names and with the arithmetic of a run's model."""
    if arch is None or not _RESNET.fullmatch(arch):
        says = "does not say its arch" if arch is None else f"says that its arch is {arch!r}"
        raise InputError(
            f"{path} has the layout of SimSiam's original release, but {says}",
            "That layout is of torchvision's ResNets: resnet18, resnet50 and their kin.",
        )
    encoder, predictor = _below(state, "encoder."), _below(state, "predictor.")
    stray = [key for key in state if not key.startswith(("encoder.", "predictor."))]
    if stray:
        raise InputError(f"{path} has {_first(stray)}, which belongs to no part of SimSiam")
    projector = _below(encoder, "fc.")
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
    folded = fold_bias(projector, last)
    return Weights(
        "simsiam",
        arch,
        {"backbone": backbone, "projector": folded, "predictor": predictor},
        settings,
    )


def fold_bias(projector: State, last: int) -> State:
    """The projector without the bias of its last fc, which is moved into the BN that follows.

    BN(Wx + b) subtracts the running mean m: (Wx + b) - m = Wx - (m - b). In training the bias has
    no effect at all, since the batch's mean has it too.

    Args:
        projector: state dict by the layers' numbers.
        last: number of the last fc; its BN is the one after it.
    """
    folded = dict(projector)
    bias = folded.pop(f"{last}.bias", None)
    mean = f"{last + 1}.running_mean"
    if bias is not None and mean in folded:
        folded[mean] = folded[mean] - bias
    return folded


def _below(state: State, prefix: str) -> State:
    return {k.removeprefix(prefix): value for k, value in state.items() if k.startswith(prefix)}


def _first(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
