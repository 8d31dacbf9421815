"""A run's frozen network applied to images: one row of features for each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simsiam_zoo.data.batches import LoadedBatch
from simsiam_zoo.data.loader import EvalLoader, normalize
from simsiam_zoo.data.shards import Dataset, ShardSet
from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.features import Encoder, extract, frozen
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.layers import dataset_spec
from simsiam_zoo.runtime.device import Runtime, open_runtime
from simsiam_zoo.siamese import Batch, Siamese
from simsiam_zoo.training.run import Run

Output = Literal["backbone", "z", "p"]
PARTS_BEFORE: dict[Output, tuple[str, ...]] = {
    "backbone": ("backbone",),
    "z": ("backbone", "projector"),
    "p": ("backbone", "projector", "predictor"),
}
"""What an image passes through on the way to each output."""


@dataclass(frozen=True)
class Embedding:
    """Features of images of one split, in the order of their ids.

    Attributes:
        x: [N, D] float32.
        ids: dense ids [N] int64.
        labels: [N] int64, -1 where there is none.
        damaged: names of images that were left out.
    """

    x: Tensor
    ids: Tensor
    labels: Tensor
    damaged: tuple[str, ...] = ()


class Network:
    """A run's network, frozen, as a function of images.

    Args:
        run: whose weights.
        of: `backbone`: what is evaluated; `z`: after the projector; `p`: after the predictor.
        device: where it runs; None for the recipe's choice.

    Attributes:
        digest: SHA-256 over names and values of all the weights that are used.

    Raises:
        InputError: there are no weights yet, or no such device.
        DataError, PluginError: as for `Run.backbone` and `Run.model`.
    """

    def __init__(self, run: Run, of: Output = "backbone", device: str | None = None) -> None:
        self.recipe = run.recipe
        self.of = of
        module: nn.Module = run.backbone if of == "backbone" else run.model
        names = PARTS_BEFORE[of]
        self.digest = weights_digest(
            {"backbone": module} if of == "backbone" else {n: getattr(module, n) for n in names}
        )
        self.runtime = _runtime(run.recipe, device)
        module = module.to(self.runtime.device, self.runtime.dtype)
        self._encode = frozen(module, self.runtime, _call(module, of))

    def embed(
        self,
        shards: ShardSet,
        ids: NDArray[Any] | None = None,
        *,
        skip_damaged: bool = False,
        shown: Callable[[int], None] = lambda done: None,
    ) -> Embedding:
        """Features of centre views, of all images or of `ids`. Labels are not needed.

        Args:
            shards: the images.
            ids: dense ids; None for all.
            skip_damaged: leave damaged images out instead of failing.
            shown: told how many images are done.

        Raises:
            DataError: an image or a shard is damaged.
        """
        loader = EvalLoader(
            shards,
            self.recipe.data.image_size,
            crop=self.recipe.evaluation.crop,
            ids=ids,
            skip_damaged=skip_damaged,
        )
        found: list[LoadedBatch] = []
        split = extract(self._batches(loader, found, shown), {self.of: self._encode})
        return Embedding(
            split.by_encoder[self.of],
            torch.cat([batch.ids for batch in found]),
            split.labels,
            tuple(damage.name for batch in found for damage in batch.damaged),
        )

    def transform(self) -> dict[str, Any]:
        """How an image becomes the network's input, and with which arithmetic."""
        data = self.recipe.data
        return {
            "view": "centre",
            "image_size": data.image_size,
            "crop": self.recipe.evaluation.crop,
            "mean": list(data.mean),
            "std": list(data.std),
            "precision": self.runtime.precision,
            "device": self.runtime.device.type,
        }

    def _batches(
        self, loader: Iterable[LoadedBatch], found: list[LoadedBatch], shown: Callable[[int], None]
    ) -> Iterator[Batch]:
        """Normalised batches; `found` gets each without its pixels."""
        data, done = self.recipe.data, 0
        for loaded in loader:
            found.append(replace(loaded, pixels=loaded.pixels.new_empty(0)))
            view = normalize(
                loaded.views[0], data.mean, data.std, self.runtime.device, self.runtime.dtype
            )
            yield Batch(views=[view], labels=loaded.labels)
            done += len(loaded.ids) + len(loaded.damaged)
            shown(done)


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


def weights_digest(modules: dict[str, nn.Module]) -> str:
    """SHA-256 (hex) over each weight's and buffer's name, type, shape and bytes."""
    digest = hashlib.sha256()
    for part, module in sorted(modules.items()):
        for name, value in sorted(module.state_dict().items()):
            value = value.detach().cpu().contiguous()
            digest.update(f"{part}.{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _runtime(recipe: Recipe, device: str | None) -> Runtime:
    """The run's device and arithmetic; on another device, the arithmetic that it does best."""
    training = recipe.training
    try:
        if device is None:
            return open_runtime(training.device, training.precision, training.threads)
        return open_runtime(device, "auto", training.threads)
    except InputError as error:
        if device is None:
            raise InputError(error.what, "Say --device cpu.") from None
        raise


def _call(module: nn.Module, of: Output) -> Encoder:
    if not isinstance(module, Siamese):
        return module
    siamese = module
    return siamese.encode if of == "z" else lambda x: siamese.predict(siamese.encode(x))
