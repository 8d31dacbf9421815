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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.evaluation.target import BACKBONE, LIBRARY, published, run_of
from simsiam_zoo.model.backbones import timm_recipe
from simsiam_zoo.model.siamese import Siamese
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import read_lock, refuse_missing
from simsiam_zoo.runtime.checkpoint import load_checkpoint, load_into, load_last, read_safetensors
from simsiam_zoo.runtime.folders import atomic_write

PRETRAINED = f"{LIBRARY}pretrained"
INIT_FILE = "init.safetensors"
_TRAINED = ("backbone", "projector", "predictor")

States = Mapping[str, Mapping[str, Tensor]]
"""A part's name → its state dict."""


@dataclass(frozen=True)
class InitialWeights:
    """Weights to start from: `source` as the user wrote it, `states` of the parts that have it."""

    source: str
    states: States

    @cached_property
    def digest(self) -> str:
        """sha256 of the weights by their names, in hex: the same wherever they were read from."""
        digest = hashlib.sha256()
        for name, value in sorted(_flat(self.states).items()):
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
        return {"source": self.source, "sha256": self.digest, "parts": [*self.states]}

    def __str__(self) -> str:
        rest = [part for part in _TRAINED if part not in self.states]
        at_random = f"; {' and '.join(rest)} at random" if rest else ""
        return f"{', '.join(self.states)} from {self.source}{at_random}"


def read_initial_weights(source: str, recipe: Recipe) -> InitialWeights:
    """The weights of a run, a checkpoint in one or `timm:pretrained`, for `recipe`; InputError."""
    if source == PRETRAINED:
        return InitialWeights(source, {"backbone": _pretrained(recipe)})
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
    states, changes = _states_of(Path(source), run)
    shared = _shared(theirs.stages()[changes].recipe, recipe)
    return InitialWeights(source, {part: states[part] for part in shared if part in states})


def load_initial_weights(siamese: Siamese, states: States) -> None:
    """Load the weights into the parts that they are of; InputError: they do not fit."""
    for part, state in states.items():
        what = f"the weights to start from do not fit the {part}"
        try:
            load_into(siamese.get_submodule(part), state, what)
        except DataError as error:
            hint = "They may be of another image size (data.image_size)."
            raise InputError(error.what, hint) from None


def save_init(folder: Path, states: States) -> None:
    """Write the weights into the run's folder."""
    with atomic_write(folder / INIT_FILE) as file:
        file.write(save({name: value.contiguous() for name, value in _flat(states).items()}))


def load_init(folder: Path) -> States:
    """The weights that the run in `folder` started from; none where they were random."""
    path = folder / INIT_FILE
    if not path.is_file():
        return {}
    return _by_part(read_safetensors(path)[0])


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


def _states_of(path: Path, run: Path) -> tuple[States, int]:
    """What a run's file holds, after how many changes of its recipe.

    Of its folder it is the last checkpoint, or the backbone alone.
    """
    if path.is_dir():
        whole_network, alone = run / "checkpoints", run / BACKBONE
        path = alone if alone.is_file() and not whole_network.is_dir() else whole_network
    if path.suffix == ".safetensors":
        return {"backbone": read_safetensors(path)[0]}, 0
    state = load_last(path)[0] if path.is_dir() else load_checkpoint(path)
    if not isinstance(whole := state.get("siamese"), dict):
        raise InputError(f"{path} is no checkpoint of a run of simsiam-zoo")
    return _by_part(whole), state.get("changes", 0)


def _shared(theirs: Recipe, ours: Recipe) -> list[str]:
    """The parts, from the backbone on, that both have alike; what follows another one is not."""
    shared = []
    for kind in _TRAINED:
        there, here = theirs.part(kind), ours.part(kind)
        if kind != "backbone" and (there.id, there.params) != (here.id, here.params):
            break
        shared.append(kind)
    return shared


def _by_part(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    states: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        part, _, key = name.partition(".")
        if part in _TRAINED:
            states.setdefault(part, {})[key] = value
    return states


def _flat(states: States) -> dict[str, Tensor]:
    return {
        f"{part}.{key}": value for part, state in states.items() for key, value in state.items()
    }


def of_parts(siamese: Siamese, parts: Iterable[str]) -> States:
    """The weights that `parts` have now, on the CPU."""
    return {
        part: {key: v.detach().cpu() for key, v in siamese.get_submodule(part).state_dict().items()}
        for part in parts
    }


def write_backbone(backbone: nn.Module, recipe: Recipe, identity: str, path: Path) -> None:
    """Write a backbone's weights with the metadata that rebuild it (see the module)."""
    metadata = _metadata(backbone, recipe, identity)
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


def _metadata(backbone: nn.Module, recipe: Recipe, identity: str) -> dict[str, str]:
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
    return metadata
