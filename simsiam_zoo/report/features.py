"""A run's frozen network applied to images: one row of features for each."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from simsiam_zoo.data.shards import Dataset, ShardSet
from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.frozen_pass import state_digest
from simsiam_zoo.evaluation.target import open_target, read_recipe
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.layers import Text, dataset_spec
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.run import Run

Output = Literal["backbone", "z", "p"]
PARTS_BEFORE: dict[str, tuple[str, ...]] = {
    "z": ("backbone", "projector"),
    "p": ("backbone", "projector", "predictor"),
}
"""What an image passes through on the way to each output but the backbone's."""


@dataclass(frozen=True)
class Embedding:
    """Features of images of one split, in the order of their ids.

    Attributes:
        x: [N, D] float32, mapped into memory.
        ids: dense ids [N] int64.
        labels: [N] int64, -1 where there is none.
        damaged: names of images that were left out.
    """

    x: Tensor
    ids: Tensor
    labels: Tensor
    damaged: tuple[str, ...] = ()


class Network:
    """A run's network, frozen, as a function of images. What it gives is kept beside the run.

    The backbone is opened as `simsiam-zoo evaluate` does it, and finds the features that were
    taken there.

    Args:
        run: whose weights.
        of: `backbone`: what is evaluated; `z`: after the projector; `p`: after the predictor.
        device: where it runs; None for the recipe's choice.
        progress: told how far a pass over images is.

    Attributes:
        digest: SHA-256 over names and values of all the weights that are used.

    Raises:
        InputError: there are no weights yet, or no such device.
        DataError, PluginError: as for `Run.model`.
    """

    def __init__(
        self,
        run: Run,
        of: Output = "backbone",
        device: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        source, settings = str(run.folder), {}
        if device is not None:  # with the arithmetic that it does best
            settings = {"training.device": Text(device), "training.precision": "auto"}
        self.recipe, folder = read_recipe(source, None, settings)
        subject = open_target(source, self.recipe, folder, None)
        if of != "backbone":
            parts = OrderedDict((name, getattr(run.model, name)) for name in PARTS_BEFORE[of])
            subject = replace(subject, name=of, backbone=nn.Sequential(parts).eval())
        try:
            self._pass = subject.frozen_pass(progress=progress)
        except InputError as error:
            if device is None:
                raise InputError(error.what, "Say --device cpu.") from None
            raise
        self.digest = state_digest(self._pass.network)

    def embed(
        self,
        shards: ShardSet,
        ids: NDArray[np.int64] | None = None,
        *,
        what: str = "images",
        skip_damaged: bool = False,
    ) -> Embedding:
        """Features of centre views, of all images or of `ids`. Labels are not needed.

        Args:
            shards: the images.
            ids: dense ids, growing; None for all.
            what: the images are called, where progress is shown.
            skip_damaged: leave damaged images out instead of failing.

        Raises:
            DataError: an image or a shard is damaged.
            InputError: the features cannot be written.
        """
        found, _ = self._pass.features(shards, what, whole=not skip_damaged, ids=ids)
        assert found.ids is not None  # a pass always gives them
        wanted = np.arange(len(shards)) if ids is None else ids
        left_out = np.setdiff1d(wanted, found.ids.numpy())
        return Embedding(
            found.x, found.ids, found.labels, tuple(shards.name(id) for id in left_out.tolist())
        )

    def transform(self) -> dict[str, Any]:
        """How an image becomes the network's input, and with which arithmetic."""
        runtime = self._pass.runtime
        return {
            "view": "centre",
            **self._pass.transform.describe(),
            "precision": runtime.precision,
            "device": runtime.device.type,
        }


def open_data(run: Run, data: str | None = None) -> Dataset:
    """The run's own data, or what `data` names as `train --data` does; counted and readable by id.

    Raises:
        InputError: it is not there.
        DataError: it is damaged.
    """
    recipe = run.recipe
    if data is not None:
        settings: dict[str, object] = {"dataset": dataset_spec(data), "data.stream": False}
        settings["data.steps_per_epoch"] = 0
        recipe = Recipe.of_run(run.folder / "recipe.toml", settings)
    dataset: Dataset = recipe.part("dataset").create()
    return dataset
