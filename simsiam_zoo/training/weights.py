"""The weights that a run starts from in place of random ones, and those that it leaves behind.

A run starts from another run's weights, as far as both have the same backbone, projector and
predictor, or from those that timm has for its backbone (`timm:pretrained`). They are kept in its
folder, `init.safetensors`: the verdict compares with them, also when the run was interrupted and
their source is gone. The recipe's `training.init` is their digest, and the lock's table `init` says
where they are from.

The trained backbone is in `backbone.safetensors`, as timm loads it. The file's metadata are texts
that it takes to rebuild it; what is no plain word is JSON:

    simsiam_zoo.backbone   the component's id
    simsiam_zoo.params     its parameters
    simsiam_zoo.data       image_size, mean and std of the images that it was trained on
    simsiam_zoo.identity   of the run
    simsiam_zoo.python     of timm's models: Python that makes it, of timm alone, to be read
    simsiam_zoo.timm       of timm's models: name, arguments, and how timm's module was changed
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.evaluation.source import LIBRARY, run_of
from simsiam_zoo.evaluation.target import BACKBONE, below, published, read_network
from simsiam_zoo.model.backbones import timm_recipe
from simsiam_zoo.model.siamese import Siamese
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import read_lock, refuse_missing
from simsiam_zoo.runtime.checkpoint import load_into, read_safetensors
from simsiam_zoo.runtime.folders import atomic_write

PRETRAINED = f"{LIBRARY}pretrained"
INIT_FILE = "init.safetensors"
_TRAINED = ("backbone", "projector", "predictor")

States = Mapping[str, Tensor]
"""Weights of some of a network's parts, by part and key: `backbone.conv1.weight`."""


@dataclass(frozen=True)
class InitialWeights:
    """Weights to start from: `source` as the user wrote it, `states` of the parts that have it."""

    source: str
    states: States

    @property
    def parts(self) -> list[str]:
        """The parts that do not start at random."""
        return [part for part in _TRAINED if below(f"{part}.", self.states)]

    @cached_property
    def digest(self) -> str:
        """sha256 of the weights by their names, in hex: the same wherever they were read from."""
        digest = hashlib.sha256()
        for name, value in sorted(self.states.items()):
            digest.update(f"{name} {value.dtype} {list(value.shape)}\0".encode())
            digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def named_in(self, recipe: Recipe) -> Recipe:
        """The recipe of a run that starts from these weights; InputError: it names others."""
        if recipe.training.init not in ("", self.digest[:16]):
            raise InputError(
                f"the recipe starts from the weights {recipe.training.init} (training.init), and"
                f" {self.source} has others ({self.digest[:16]})",
                "Name the weights that it is of, or clear the key: --set training.init=",
            )
        training = recipe.training.model_copy(update={"init": self.digest[:16]})
        return recipe.model_copy(update={"training": training})

    def describe(self) -> dict[str, Any]:
        """What the lock says of it."""
        return {"source": self.source, "sha256": self.digest, "parts": self.parts}

    def __str__(self) -> str:
        rest = [part for part in _TRAINED if part not in self.parts]
        at_random = f"; {' and '.join(rest)} at random" if rest else ""
        return f"{', '.join(self.parts)} from {self.source}{at_random}"


def read_initial_weights(source: str, recipe: Recipe) -> InitialWeights:
    """The weights of a run, a checkpoint in one or `timm:pretrained`, for `recipe`; InputError."""
    if source == PRETRAINED:
        weights = _pretrained(recipe)
        return InitialWeights(source, {f"backbone.{key}": x for key, x in weights.items()})
    if source.startswith(LIBRARY):
        raise InputError(
            f"--init takes a run or {PRETRAINED}, not {source!r}",
            f"--backbone says which model; {PRETRAINED} is the weights that timm has for it.",
        )
    run = run_of(source)
    if run is None:
        raise InputError(
            f"there is no run {source!r} to start from",
            f"Say a run's folder, a checkpoint in one, or {PRETRAINED};"
            " `simsiam-zoo import` makes a run of other weights.",
        )
    refuse_missing(read_lock(run))
    theirs = Recipe.of_run(run / "recipe.toml")
    backbone, own = theirs.part("backbone"), recipe.part("backbone")
    if backbone.id != own.id:
        raise InputError(
            f"{source} has the backbone {backbone.name}, and this run {own.name}",
            f"Say --backbone {backbone.name}, or start from another run.",
        )
    path, whole_network, alone = Path(source), run / "checkpoints", run / BACKBONE
    if path.is_dir():
        path = alone if alone.is_file() and not whole_network.is_dir() else whole_network
    states, changes = read_network(path)
    shared = _shared(theirs.stages()[changes].recipe, recipe)
    kept = {key: x for key, x in states.items() if key.partition(".")[0] in shared}
    return InitialWeights(source, kept)


def load_initial_weights(siamese: Siamese, states: States) -> None:
    """Load the weights into the parts that they are of; InputError: they do not fit."""
    for part in _TRAINED:
        what = f"the weights to start from do not fit the {part}"
        try:
            if state := below(f"{part}.", states):
                load_into(siamese.get_submodule(part), state, what)
        except DataError as error:
            hint = "They may be of another image size (data.image_size)."
            raise InputError(error.what, hint) from None


def save_init(folder: Path, states: States) -> None:
    """Write the weights into the run's folder."""
    with atomic_write(folder / INIT_FILE) as file:
        file.write(save({name: value.contiguous() for name, value in states.items()}))


def load_init(folder: Path) -> States:
    """The weights that the run in `folder` started from; none where they were random."""
    path = folder / INIT_FILE
    return read_safetensors(path)[0] if path.is_file() else {}


def _pretrained(recipe: Recipe) -> dict[str, Tensor]:
    part = recipe.part("backbone")
    if part.entry.member is None or part.id.partition("/")[2] != f"{LIBRARY}{part.entry.member}":
        raise InputError(
            f"{PRETRAINED} is the weights of a model of timm's, and {part.name} is none",
            "`simsiam-zoo list --family timm --pretrained` shows which have some.",
        )
    size, channels = recipe.data.image_size, recipe.data.channels
    backbone = part.create(image_size=size, channels=channels)
    hint = "Leave out --init for random ones."
    return published(part.entry.member, size, backbone, hint, channels)


def _shared(theirs: Recipe, ours: Recipe) -> list[str]:
    """The parts, from the backbone on, that both have alike; what follows another one is not."""
    shared = []
    for kind in _TRAINED:
        there, here = theirs.part(kind), ours.part(kind)
        if kind != "backbone" and (there.id, there.params) != (here.id, here.params):
            break
        shared.append(kind)
    return shared


def write_backbone(backbone: nn.Module, recipe: Recipe, identity: str, path: Path) -> None:
    """Write a backbone's weights with the metadata that rebuild it (see the module)."""
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
        metadata |= {"simsiam_zoo.python": made.code, "simsiam_zoo.timm": json.dumps(of_timm)}
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
