"""Ablation in time: what a recipe substitutes at the start of an epoch, while the run goes on.

    [[change]]
    epoch = 8                 # after eight epochs; or a share of the run, 0.5
    gradient = "none"
    optim.lr = 0.1
    freeze = ["projector"]
    reset = ["predictor"]

A change lies on what is in force before it, as a layer of a recipe lies on the one below.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, Strict

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.errors import InputError, did_you_mean
from simsiam_zoo.recipe.layers import Tree, flat, merge, normal
from simsiam_zoo.recipe.sections import ChosenComponent, Optim, Section

SUBSTITUTED = ("predictor", "gradient", "loss", "augmentation")
"""The components that may be another one from an epoch on."""

_OPTIM = ("lr", "weight_decay", "norm_and_bias_lr_scale", "schedule", "clip_norm", "parts")
_POSSIBLE = (*SUBSTITUTED, *(f"optim.{key}" for key in _OPTIM), "freeze", "reset")

Heads = Annotated[tuple[Literal["projector", "predictor"], ...], Strict(False)]


class Change(Section):
    """One `[[change]]`, complete: what is stated is there with all its parameters, the rest None.

    Attributes:
        epoch: whole epochs that are done before it.
        optim: the keys of `optim` that it states.
        freeze: heads whose parameters stay as they are from then on.
        reset: heads that begin anew, at random.
    """

    epoch: int = Field(ge=1)
    predictor: ChosenComponent | None = None
    gradient: ChosenComponent | None = None
    loss: ChosenComponent | None = None
    augmentation: ChosenComponent | None = None
    optim: dict[str, Any] | None = None
    freeze: Heads | None = None
    reset: Heads | None = None

    @property
    def components(self) -> dict[str, ChosenComponent]:
        """The components that it states."""
        found = {kind: getattr(self, kind) for kind in SUBSTITUTED}
        return {kind: chosen for kind, chosen in found.items() if chosen is not None}

    @property
    def renewed(self) -> tuple[str, ...]:
        """The parts of the network that begin anew with it, in the order of `PARTS`."""
        stated = {*self.components, *(self.reset or ())}
        return tuple(part for part in PARTS if part in stated)

    def over(self, optim: Optim) -> dict[str, Any]:
        """The fields of a recipe with this `optim` that are others from this change on."""
        if self.optim is None:
            return dict(self.components)
        tree = merge(optim.model_dump(exclude_none=True), self.optim)
        return {**self.components, "optim": Optim.model_validate(tree)}

    def __str__(self) -> str:
        words = [f"{kind} {chosen.name}" for kind, chosen in self.components.items()]
        words += [f"{path} {value}" for path, value in flat({"optim": self.optim or {}}).items()]
        words += [f"{part} at random again" for part in self.reset or ()]
        words += [f"{part} frozen" for part in self.freeze or ()]
        return ", ".join(words)


def read_change(table: Any, after: int, epochs: int, keys: Collection[str]) -> Tree:
    """A change as it was stated: its keys checked, components as tables, `epoch` a number of them.

    Args:
        after: the epoch of the change before it, or 0.
        epochs: of the whole run.
        keys: all of a recipe's, for what to say of those that cannot change.
    """
    if not isinstance(table, dict):
        raise InputError(f"it is a table with an epoch, not {table!r}")
    for path in flat(table):
        _refuse_impossible(path, keys)
    tree = normal(table)
    if "epoch" not in tree:
        raise InputError("it states no epoch", "Say epoch = N, whole epochs done before it.")
    if not any(value not in ([], {}) for key, value in tree.items() if key != "epoch"):
        raise InputError("it changes nothing", f"What can change: {', '.join(_POSSIBLE)}.")
    tree["epoch"] = epoch = _whole_epochs(tree["epoch"], epochs)
    if epoch >= epochs:
        raise InputError(f"epoch {epoch} does not come in a run of {epochs} epochs")
    if epoch <= after:
        of = f"is not after {after}, that of the change before it" if after else "is the beginning"
        raise InputError(f"epoch {epoch} {of}", "Say an epoch after it; the first can be 1.")
    return tree


def _whole_epochs(stated: Any, epochs: int) -> int:
    if isinstance(stated, float) and 0 < stated < 1:
        return max(1, round(stated * epochs))
    if isinstance(stated, int) and not isinstance(stated, bool):
        return stated
    raise InputError(
        f"epoch is a number of epochs that are done before it, or a share of the run above 0 and"
        f" below 1, not {stated!r}"
    )


def _refuse_impossible(path: str, keys: Collection[str]) -> None:
    """Stop at a key that no change has: misspelt, or of something that stays as it is."""
    first, _, rest = path.partition(".")
    key = f"optim.{rest.partition('.')[0]}" if first == "optim" and rest else first
    if key == "epoch" or key in _POSSIBLE:
        return
    known = {*keys, *(each.partition(".")[0] for each in keys)}
    can = f"What can change: {', '.join(_POSSIBLE)}."
    if path in known or first in known - {"optim"}:
        raise InputError(f"{path} cannot change in the middle of a run", can)
    ends = [each for each in _POSSIBLE if each.rpartition(".")[2] == path]  # lr for optim.lr
    hint = f"Did you mean {ends[0]}?" if ends else did_you_mean(path, (*_POSSIBLE, "epoch"), can)
    raise InputError(f"a change has no key {path!r}", hint)


def is_change(value: object) -> bool:
    """Whether a value is a change as a recipe states it, read or not."""
    return isinstance(value, dict) and isinstance(value.get("epoch"), int | float)


def in_words(stated: Mapping[str, Any]) -> str:
    """`from epoch 10 on: gradient none`; an epoch below 1 is a share of the run."""
    epoch, words = stated["epoch"], []
    for key, value in stated.items():
        if isinstance(value, dict) and "name" in value:
            value = value["name"]
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        elif not isinstance(value, str):
            value = json.dumps(value, ensure_ascii=False, default=str)
        words += [] if key == "epoch" else [f"{key} {value}"]
    at = f"epoch {epoch:g}" if epoch >= 1 else f"{100 * epoch:g} % of the run"
    return f"from {at} on: {', '.join(words)}"
