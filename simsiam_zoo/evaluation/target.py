"""What is evaluated: a run, a checkpoint of one, or a model of timm's; its network and transform.

RUN                       a run's folder: its backbone, complete or not
RUN/checkpoints/last.pt   one checkpoint of a run
RUN/backbone.safetensors  the same as RUN; elsewhere with --preset, which gives the transform
timm:NAME                 a model of timm's, with the weights that timm has for it
timm:NAME:pretrained=false  at its initialisation
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from simsiam_zoo.catalog import Resolved, catalog, split_spec
from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.evaluation.frozen_pass import BATCH, FrozenPass, Transform
from simsiam_zoo.evaluation.networks import FrozenNetwork
from simsiam_zoo.model.backbones import timm_backbone
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import read_lock, refuse_missing
from simsiam_zoo.runtime.checkpoint import load_checkpoint, load_last
from simsiam_zoo.runtime.device import open_runtime
from simsiam_zoo.runtime.folders import cache_dir
from simsiam_zoo.runtime.progress import Progress

LIBRARY = "timm:"
BACKBONE = "backbone.safetensors"


@dataclass(frozen=True)
class EvalTarget:
    """A network to evaluate, on the CPU, and how images come to it.

    Args:
        source: as the user wrote it.
        name: the backbone's component, with its parameters.
        backbone: [N, 3, S, S] → [N, D].
        transform: of the centre views.
        recipe: gives the data, the protocols, the device and the arithmetic.
        run: the run's folder; None where there is none.
        precision: the arithmetic that the run was evaluated with; None where none is known.
    """

    source: str
    name: str
    backbone: nn.Module
    transform: Transform
    recipe: Recipe
    run: Path | None = None
    precision: str | None = None

    @property
    def store(self) -> Path:
        """Where its features are kept: beside the run if that can be, else in the user's cache."""
        if self.run is None or not os.access(self.run, os.W_OK):
            return cache_dir() / "features"
        return self.run / "features"

    def frozen_pass(self, batch: int = BATCH, progress: Progress | None = None) -> FrozenPass:
        """The network on its device, to be looked at and not changed.

        Args:
            batch: images at once, of each process.
            progress: told how far a pass is.

        Raises:
            InputError: the device cannot do what is asked.
        """
        training, data = self.recipe.training, self.recipe.data
        runtime = open_runtime(
            training.device, self.precision or training.precision, training.threads
        )
        network = FrozenNetwork(self.name, self.backbone.to(runtime.device, runtime.dtype))
        return FrozenPass(
            [network],
            self.transform,
            runtime,
            self.store,
            batch,
            None if data.workers == "auto" else data.workers,
            progress or Progress(),
        )


def read_recipe(
    source: str, preset: str | None, settings: Mapping[str, object]
) -> tuple[Recipe, Path | None]:
    """The recipe to evaluate `source` by, and the run that it is of.

    Args:
        source: as the user wrote it.
        preset: the transform and the data of a source that is no run.
        settings: dotted paths and values, laid on the recipe.

    Raises:
        InputError: there is no such thing, or a setting is wrong.
        PluginError: a part of the run comes from a plugin that is not here.
        DataError: the run's lock is damaged.
    """
    run = run_of(source)
    if run is not None:
        if preset is not None:
            raise InputError(f"{source} has its own recipe, so no --preset")
        refuse_missing(read_lock(run))
        return Recipe.of_run(run / "recipe.toml", settings), run
    if not source.startswith(LIBRARY) and not Path(source).is_file():
        raise InputError(
            f"there is no run, checkpoint or model {source!r}",
            "Say a run's folder, a .pt or .safetensors file, or timm:NAME.",
        )
    if preset is None and not source.startswith(LIBRARY):
        raise InputError(
            f"{source} lies in no run's folder, so nothing says how images come to it",
            "Say --preset NAME.",
        )
    if preset is None and "dataset" not in settings:
        raise InputError(f"{source} comes with no data", "Say --data DATASET|SHARDS.")
    return Recipe.make(preset, None, settings), None


def run_of(source: str) -> Path | None:
    """The run's folder that `source` is or lies in; None where it is none."""
    path = Path(source)
    above = [path] if path.is_dir() else [path.parent, path.parent.parent]
    if path.is_dir() or path.is_file():
        for folder in above:
            if (folder / "recipe.toml").is_file():
                return folder
    return None


def open_target(source: str, recipe: Recipe, run: Path | None, preset: str | None) -> EvalTarget:
    """Build the network of `source` and fill in its weights.

    Args:
        source: as the user wrote it.
        recipe, run: what `read_recipe` gave.
        preset: as it was given; without it timm's own configuration makes the transform.

    Raises:
        InputError: the weights cannot be had, or fit another network.
        DataError: a file is damaged.
        PluginError: the backbone cannot be built here.
    """
    transform = Transform(
        recipe.data.image_size, recipe.evaluation.crop, recipe.data.mean, recipe.data.std
    )
    if source.startswith(LIBRARY) and run is None:
        return _from_timm(source, recipe, None if preset is None else transform)
    path = _weights_file(Path(source), run)
    part = recipe.part("backbone") if run else _part_of(path)
    state = _read_state(path)
    with torch.random.fork_rng(devices=[]):
        backbone: nn.Module = part.create(image_size=transform.image_size)
    _fill(backbone, state, str(path))
    return EvalTarget(
        source,
        component_text(part),
        _ready(backbone),
        transform,
        recipe,
        run,
        _precision(run, recipe),
    )


def _from_timm(source: str, recipe: Recipe, transform: Transform | None) -> EvalTarget:
    import timm

    name, params = split_spec(source.removeprefix(LIBRARY))
    wanted = params.pop("pretrained", "true")
    if params or wanted not in ("true", "false"):
        raise InputError(f"{source}: the one parameter is pretrained, true or false")
    if not timm.is_model(name):
        catalog().resolve("backbone", LIBRARY + name)  # says which name is near
    config: Any = timm.get_pretrained_cfg(name)
    if transform is None:
        if config is None:
            raise InputError(f"timm has no transform for {name}", "Say --preset NAME.")
        transform = Transform(
            int(config.input_size[-1]),
            float(config.crop_pct),
            tuple(config.mean),
            tuple(config.std),
        )
    hint = f"Say {LIBRARY}{name}:pretrained=false for random ones."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        backbone = timm_backbone(name=name, image_size=transform.image_size, drop_path_rate=0.0)
        if wanted == "true":
            _fill(backbone, published(name, transform.image_size, hint), source)
    called = f"{LIBRARY}{name}" + ("" if wanted == "true" else " at random")
    return EvalTarget(source, called, _ready(backbone), transform, recipe)


def published(name: str, image_size: int, hint: str) -> dict[str, Tensor]:
    """The weights that timm has for a model, without its classifier.

    Args:
        name: timm's.
        image_size: height and width in pixels, for a model that is made for one size.
        hint: the way out where they cannot be had.

    Raises:
        InputError: they cannot be had.
    """
    import timm

    config: Any = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise InputError(f"timm has no weights for {name}", hint)
    size: Any = {"img_size": image_size} if config.fixed_input_size else {}
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0, **size)
    except Exception as error:  # the hub's, the network's and the disk's own
        first_line = str(error).strip().partition("\n")[0]
        raise InputError(
            f"the weights of {LIBRARY}{name} cannot be had: {type(error).__name__}: {first_line}",
            hint,
        ) from error
    state: dict[str, Tensor] = model.state_dict()
    return state


def _weights_file(path: Path, run: Path | None) -> Path:
    if path.is_file():
        return path
    assert run is not None  # `read_recipe` has looked
    if (run / BACKBONE).is_file():
        return run / BACKBONE
    return run / "checkpoints"


def _read_state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path} cannot be read: {error}") from None
    state = load_last(path)[0] if path.is_dir() else load_checkpoint(path)
    whole = state.get("siamese")
    if not isinstance(whole, dict):
        raise InputError(
            f"{path} is no checkpoint of a run of simsiam-zoo",
            "Those hold the network's five parts.",
        )
    start = "backbone."
    return {key.removeprefix(start): whole[key] for key in whole if key.startswith(start)}


def _part_of(path: Path) -> Resolved:
    """The component that a file of weights says it is of."""
    try:
        with safe_open(path, "pt") as file:
            spec = (file.metadata() or {}).get("simsiam_zoo.backbone")
    except (SafetensorError, OSError) as error:
        if path.suffix == ".safetensors":
            raise DataError(f"{path} cannot be read: {error}") from None
        spec = None
    if spec is None:
        raise InputError(
            f"{path} does not say which backbone its weights are of",
            "A checkpoint is read in its run's folder; other weights have to be imported first.",
        )
    return catalog().resolve("backbone", spec)


def _fill(backbone: nn.Module, state: dict[str, Tensor], where: str) -> None:
    own = backbone.state_dict().keys()
    known = {key: value for key, value in state.items() if key in own}
    try:
        backbone.load_state_dict(known if where.startswith(LIBRARY) else state)
    except RuntimeError as error:
        what = str(error).partition("\n")[2].strip().partition("\n")[0]
        raise DataError(f"{where} does not fit its backbone: {what}") from None


def _ready(backbone: nn.Module) -> nn.Module:
    return backbone.eval().to(memory_format=torch.channels_last)


def component_text(part: Resolved) -> str:
    """A component with the parameters that it was given: what weights are weights of."""
    given = ",".join(f"{key}={value}" for key, value in sorted(part.params.items()))
    return f"{part.id}:{given}" if given else part.id


def _precision(run: Path | None, recipe: Recipe) -> str | None:
    """What `auto` meant when the run was trained, so that it is evaluated alike."""
    if run is None or recipe.training.precision != "auto":
        return None
    machine = read_lock(run).get("machine", {})
    return str(machine["precision"]) if machine.get("device") == "cpu" else None
