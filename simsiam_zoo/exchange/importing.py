"""`simsiam-zoo import`: a run's folder around weights that were trained elsewhere.

    recipe.toml  lock.toml  checkpoints/step-00000000.pt  backbone.safetensors

Nothing was measured yet, so there is no result.json. The lock's table `imported` says where the
weights are from; the recipe's `training.init` is their digest, as of a run that starts from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from simsiam_zoo.catalog import PARTS, catalog
from simsiam_zoo.errors import InputError
from simsiam_zoo.exchange.export import written_whole
from simsiam_zoo.exchange.weights import StateDict, Weights, below_prefix, fit_weights, read_weights
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import identity, make_lock
from simsiam_zoo.runtime.checkpoint import save_checkpoint
from simsiam_zoo.runtime.device import open_runtime
from simsiam_zoo.runtime.folders import file_sha256
from simsiam_zoo.training.run import Run, build
from simsiam_zoo.training.run_folder import RunFolder, refuse_occupied
from simsiam_zoo.training.weights import InitialWeights, write_backbone

PRESET = "imagenet"
"""What published weights were most often trained by."""

UNKNOWN = "unknown"
"""The data's digest: what the weights were trained on is not asked."""


def import_checkpoint(
    checkpoint: Path | str,
    out: Path | str,
    *,
    backbone: str | None = None,
    preset: str | None = None,
    file: Path | str | None = None,
    settings: Mapping[str, object] | None = None,
) -> Run:
    """Make a run's folder of SimSiam's original checkpoints, or of a timm or torchvision backbone.

    Args:
        checkpoint: the file; see `weights.py` for what is understood.
        out: the run's folder, new or empty.
        backbone: which one it is, where the file does not say.
        preset, file, settings: the recipe, as for `Recipe.make`; by default the preset `imagenet`.
            The parts that the file holds are as it says.

    Returns:
        The run. Its lock's table `imported` says what was read: `prefix` stood before the
        backbone's keys, `left_out` are the first words of the keys beside it.

    Raises:
        InputError: `out` is taken or cannot be written, the file has no layout that is known, or
            its weights do not fit the architecture.
        PluginError: a part cannot be created.
        DataError: the file is damaged, or holds more than tensors and plain values.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    refuse_occupied(out)
    weights = read_weights(checkpoint)
    recipe = _recipe(weights, checkpoint, backbone, preset, file, settings or {})
    states, prefix, left_out = StateDict(), "", list[str]()
    siamese = build(recipe)
    for part, state in weights.parts.items():
        own = siamese.get_submodule(part).state_dict()
        if [*weights.parts] == ["backbone"]:
            state, prefix, left_out = below_prefix(state, own)
        fitted = fit_weights(state, own, part, checkpoint)
        states |= {f"{part}.{key}": value for key, value in fitted.items()}
    siamese = build(recipe, states)  # anew, since a part may copy others' weights
    heads = "backbone.", "projector.", "predictor."
    trained = {key: x for key, x in siamese.state_dict().items() if key.startswith(heads)}
    recipe = InitialWeights(str(checkpoint), trained).named_in(recipe)
    lock = make_lock(recipe, UNKNOWN, _machine(recipe))
    lock["imported"] = {
        "source": checkpoint.name,
        "sha256": file_sha256(checkpoint),
        "arch": weights.arch or recipe.backbone.name,
        "parts": [*weights.parts],
        "prefix": prefix,
        "left_out": left_out,
    }
    name = identity(lock)
    with written_whole(out) as there, RunFolder(there, recipe, lock, name) as folder:
        folder.start()
        plain = {"identity": name, "step": 0, "elapsed": 0.0, "siamese": siamese.state_dict()}
        save_checkpoint(folder.checkpoints, 0, plain)
        write_backbone(siamese.backbone, recipe, name, there / "backbone.safetensors")
    return Run(out, recipe)


def _machine(recipe: Recipe) -> dict[str, Any]:
    """What the runtime chooses here; the caller's number of threads is left as it was."""
    threads, training = torch.get_num_threads(), recipe.training
    try:
        return open_runtime(training.device, training.precision, training.threads).describe()
    finally:
        torch.set_num_threads(threads)


def _recipe(
    weights: Weights,
    checkpoint: Path,
    backbone: str | None,
    preset: str | None,
    file: Path | str | None,
    settings: Mapping[str, object],
) -> Recipe:
    """The recipe with the parts that the file holds; InputError where the user contradicts it."""
    name = backbone or weights.arch
    if name is None:
        raise InputError(
            f"{checkpoint} does not say which architecture its weights are of",
            "Say --backbone with timm's name for it, say --backbone resnet50.",
        )
    if weights.arch and name != weights.arch:
        known = catalog()
        if known.resolve("backbone", name).id != known.resolve("backbone", weights.arch).id:
            raise InputError(
                f"{checkpoint} says that its arch is {weights.arch!r}, and --backbone says {name!r}"
            )
    stated = {"backbone": name, **weights.settings, "training.init": ""}
    held = {key.partition(".")[0] for key in stated}
    for key in settings:
        part = key.partition(".")[0]
        if part in PARTS and part in held:
            raise InputError(f"{key} cannot be set: the {part} is as {checkpoint} has it")
    base = preset if preset is not None or file is not None else PRESET
    return Recipe.make(base, file, {**stated, **settings, "training.init": ""})
