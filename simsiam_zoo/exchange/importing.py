"""`simsiam-zoo import`: a run's folder around weights that were trained elsewhere.

    recipe.toml  lock.toml  checkpoints/step-00000000.pt  backbone.safetensors

There is no result.json: nothing was measured here yet. The lock has a table `imported` that says
where the weights are from, and the recipe's `training.init` is their digest, so that a run which
goes on from them has another identity than one from random weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simsiam_zoo.catalog import PARTS, catalog
from simsiam_zoo.errors import InputError
from simsiam_zoo.exchange.weights import (
    Weights,
    below_prefix,
    file_digest,
    fit_weights,
    read_weights,
)
from simsiam_zoo.model.siamese import Siamese
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import identity, make_lock
from simsiam_zoo.runtime.checkpoint import save_checkpoint
from simsiam_zoo.runtime.device import open_runtime
from simsiam_zoo.runtime.folders import made_folder
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.export import write_backbone
from simsiam_zoo.training.meter import Meter
from simsiam_zoo.training.run import Run, build
from simsiam_zoo.training.run_folder import RunFolder, disk_trouble, refuse_occupied
from simsiam_zoo.training.setup import Setup, prepare
from simsiam_zoo.training.state import Checkpointer, NotFiniteError
from simsiam_zoo.training.weights import States, of_parts, save_init

PRESET = "imagenet"
"""What published weights were most often trained by."""

UNKNOWN = "unknown"
"""The data's digest, where the recipe's data is not at hand."""


@dataclass(frozen=True)
class Imported:
    """A run that was made of a checkpoint.

    Attributes:
        run: the run.
        layout: `simsiam` or `backbone`.
        parts: which of its parts have the checkpoint's weights; the others are at their start.
        prefix: what stood before the backbone's keys in the file; mostly "".
        left_out: first words of the keys beside that prefix, which the run has not.
        resumable: whether `train --resume` can go on with it: its data was at hand.
    """

    run: Run
    layout: str
    parts: tuple[str, ...]
    prefix: str
    left_out: tuple[str, ...]
    resumable: bool


def import_checkpoint(
    checkpoint: Path | str,
    out: Path | str,
    *,
    backbone: str | None = None,
    preset: str | None = None,
    file: Path | str | None = None,
    settings: Mapping[str, object] | None = None,
) -> Imported:
    """Make a run's folder of SimSiam's original checkpoints, or of a timm or torchvision backbone.

    Args:
        checkpoint: the file; see `weights.py` for what is understood.
        out: the run's folder, new or empty.
        backbone: which one it is, where the file does not say.
        preset, file, settings: the recipe, as for `Recipe.make`: what the weights were trained by,
            or what to go on with. By default the preset `imagenet`. The parts that the file holds
            are as it says.

    Raises:
        InputError: `out` is taken, the file has no layout that is known, or its weights do not
            fit the architecture.
        PluginError: a part cannot be created.
        DataError: the file is damaged, or holds more than tensors and plain values.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    refuse_occupied(out)
    weights = read_weights(checkpoint)
    digest = file_digest(checkpoint)
    recipe = _recipe(weights, digest, checkpoint, backbone, preset, file, dict(settings or {}))
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            states, prefix, left_out = _fitted(build(recipe), weights, checkpoint)
            setup = prepare(recipe, states) if _at_hand(recipe) else None
            siamese = build(recipe, states) if setup is None else setup.siamese
            imported = {
                "source": checkpoint.name,
                "sha256": digest,
                "layout": weights.layout,
                "arch": weights.arch or recipe.backbone.name,
                "parts": [*weights.parts],
            }
            _write(out, recipe, setup, siamese, imported)
    finally:
        torch.set_num_threads(threads)
    parts, resumable = tuple(weights.parts), setup is not None
    return Imported(Run(out, recipe), weights.layout, parts, prefix, left_out, resumable)


def _recipe(
    weights: Weights,
    digest: str,
    checkpoint: Path,
    backbone: str | None,
    preset: str | None,
    file: Path | str | None,
    settings: dict[str, object],
) -> Recipe:
    """The recipe with the parts that the file holds.

    Raises:
        InputError: the architecture is not known, or the user and the file contradict each other.
    """
    if backbone and weights.arch and not _same_backbone(backbone, weights.arch):
        raise InputError(
            f"{checkpoint} says that its arch is {weights.arch!r}, and --backbone says {backbone!r}"
        )
    name = backbone or weights.arch
    if name is None:
        raise InputError(
            f"{checkpoint} does not say which architecture its weights are of",
            "Say --backbone with timm's name for it, say --backbone resnet50.",
        )
    stated = {"backbone": name, **weights.settings, "training.init": digest[:16]}
    given = {key.partition(".")[0]: key for key in settings}
    for word in dict.fromkeys(key.partition(".")[0] for key in stated):
        if word in PARTS and word in given:
            raise InputError(f"{given[word]} cannot be set: the {word} is as {checkpoint} has it")
    base = preset if preset is not None or file is not None else PRESET
    return Recipe.make(base, file, {**stated, **settings, "training.init": stated["training.init"]})


def _same_backbone(one: str, other: str) -> bool:
    known = catalog()
    return one == other or known.resolve("backbone", one).id == known.resolve("backbone", other).id


def _at_hand(recipe: Recipe) -> bool:
    try:
        recipe.part("dataset").create(stream=recipe.data.stream)
    except InputError:
        return False
    return True


def _fitted(
    siamese: Siamese, weights: Weights, checkpoint: Path
) -> tuple[States, str, tuple[str, ...]]:
    """The states of the parts that the file holds; the backbone's prefix, and what is left out."""
    states, prefix, left_out = dict[str, dict[str, Tensor]](), "", list[str]()
    for part, state in weights.parts.items():
        own = siamese.get_submodule(part).state_dict()
        headless = part == "backbone"
        if headless and weights.layout == "backbone":
            state, prefix, left_out = below_prefix(state, own)
        states[part] = fit_weights(state, own, part, checkpoint, headless)
    return states, prefix, tuple(left_out)


def _write(
    out: Path, recipe: Recipe, setup: Setup | None, siamese: Siamese, imported: dict[str, Any]
) -> None:
    """Write the folder: the checkpoint of step 0, from which `train --resume` goes on.

    On an error nothing is left behind.
    """
    lock = _unresumable_lock(recipe) if setup is None else setup.lock
    name = identity(lock)
    record = RunFolder(out, recipe, {**lock, "imported": imported}, name)
    with disk_trouble(out), made_folder(out), record:
        try:
            record.start()
            _save(record, setup, siamese, name, imported["parts"])
            write_backbone(siamese.backbone, recipe, name, out / "backbone.safetensors")
        except BaseException:
            for entry in out.iterdir():
                if entry.name != ".lock":  # the record holds it, and removes it
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            raise


def _save(
    record: RunFolder, setup: Setup | None, siamese: Siamese, name: str, parts: list[str]
) -> None:
    if setup is None:
        plain = {"identity": name, "step": 0, "elapsed": 0.0, "siamese": siamese.state_dict()}
        save_checkpoint(record.checkpoints, 0, plain)
        return
    try:
        Checkpointer(setup, record, Progress(), Meter(setup)).save(0, 0.0, done=True, again=False)
    except NotFiniteError:
        raise InputError("the weights to import are not finite") from None
    save_init(record.path, of_parts(siamese, parts))


def _unresumable_lock(recipe: Recipe) -> dict[str, Any]:
    training = recipe.training
    runtime = open_runtime(training.device, training.precision, training.threads)
    machine = {"compile": training.compile, "world_size": 1, "bn_batch": training.batch_size}
    return make_lock(recipe, UNKNOWN, runtime.describe() | machine)
