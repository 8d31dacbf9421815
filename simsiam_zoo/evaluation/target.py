"""What is evaluated: a run, a checkpoint of one, or a model of timm's; its network and transform.

RUN                       a run's folder: its backbone, complete or not
RUN/checkpoints/last.pt   one checkpoint of a run
timm:NAME                 a model of timm's, with the weights that timm has for it
timm:NAME:pretrained=false  at its initialisation
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simsiam_zoo.catalog import Resolved, catalog, split_spec
from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.frozen_pass import BATCH, FrozenNetwork, FrozenPass, Transform
from simsiam_zoo.evaluation.source import LIBRARY, find_run
from simsiam_zoo.model.backbones import timm_backbone
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import read_lock
from simsiam_zoo.runtime.checkpoint import load_checkpoint, load_into, load_last, read_safetensors
from simsiam_zoo.runtime.device import open_runtime
from simsiam_zoo.runtime.folders import cache_dir
from simsiam_zoo.runtime.progress import Progress, tell

BACKBONE = "backbone.safetensors"
_TIMEOUT = 5.0  # seconds in which the hub must answer


@dataclass(frozen=True)
class EvalTarget:
    """A network to evaluate, on the CPU, and how images come to it.

    Args:
        source: as the user wrote it.
        name: the backbone's component, with its parameters.
        backbone: [N, C, S, S] → [N, D], in eval mode and channels last.
        recipe: gives the data, the protocols, the device and the arithmetic.
        untrained: the backbone as the run began with it, to be measured beside; None: it is not.
    """

    source: str
    name: str
    backbone: nn.Module
    transform: Transform
    recipe: Recipe
    run: Path | None = None
    untrained: nn.Module | None = None

    def frozen_pass(self, batch: int = BATCH, progress: Progress | None = None) -> FrozenPass:
        """The networks on their device, which cannot do what is asked: InputError.

        `batch` images at once, of each process. Features are kept beside the run if that can be,
        else in the user's cache.
        """
        training = self.recipe.training
        runtime = open_runtime(training.device, training.precision, training.threads)
        networks = [
            FrozenNetwork(self.name, backbone.to(runtime.device, runtime.dtype))
            for backbone in (self.backbone, self.untrained)
            if backbone is not None
        ]
        beside = self.run if self.run is not None and os.access(self.run, os.W_OK) else cache_dir()
        return FrozenPass(
            networks,
            self.transform,
            runtime,
            beside / "features",
            batch,
            self.recipe.data.workers,
            progress or Progress(),
        )


def open_target(
    source: str, settings: Mapping[str, object] | None = None, preset: str | None = None
) -> EvalTarget:
    """Build the network of `source`, as the user wrote it, with its weights.

    Args:
        settings: dotted paths and values, laid on the recipe.
        preset: transform and data of a model of timm's; without it timm's own configuration makes
            the transform.

    Raises:
        InputError: there is no such thing, a setting is wrong, or the weights cannot be had.
        DataError: a file is damaged.
        PluginError: a part of the run comes from a plugin that is not here, or cannot be built.
    """
    run, settings = find_run(source, preset), settings or {}
    if run is None:
        return _from_timm(source, settings, preset)
    lock = read_lock(run)
    recipe = Recipe.of_run(run / "recipe.toml", settings)
    if "dataset" in settings and not recipe.data.validation:  # other data may lack test images
        settings = {"data.validation": "auto", **settings}
        recipe = Recipe.of_run(run / "recipe.toml", settings)
    machine = lock.get("machine", {})
    if recipe.training.precision == "auto" and machine.get("device") == "cpu":
        # What `auto` meant when the run was trained, so that it is evaluated alike.
        training = recipe.training.model_copy(update={"precision": str(machine["precision"])})
        recipe = recipe.model_copy(update={"training": training})
    backbone, name = read_backbone(Path(source), recipe), component_text(recipe.part("backbone"))
    return EvalTarget(source, name, backbone, Transform.of(recipe), recipe, run)


def read_backbone(path: Path, recipe: Recipe) -> nn.Module:
    """The backbone of a run with the weights in `path`, in eval mode and channels last.

    `path` is the run's folder (its backbone, or if it is incomplete its last checkpoint) or a file.
    """
    if path.is_dir():
        path = path / (BACKBONE if (path / BACKBONE).is_file() else "checkpoints")
    state = below("backbone.", read_network(path)[0])
    with torch.random.fork_rng(devices=[]):
        backbone: nn.Module = recipe.part("backbone").create(
            image_size=recipe.data.image_size, channels=recipe.data.channels
        )
    load_into(backbone, state, f"{path} does not fit the recipe beside it")
    return backbone.eval().to(memory_format=torch.channels_last)


def read_network(path: Path) -> tuple[dict[str, Tensor], int]:
    """A run's weights by part and key, and after how many changes of its recipe they are.

    `path` is a file of a run's, or its folder of checkpoints: the newest whole one is read. Raises
    InputError: there is none, or it is of something else. DataError: it is damaged.
    """
    if path.suffix == ".safetensors":
        backbone = read_safetensors(path)[0]
        return {f"backbone.{key}": value for key, value in backbone.items()}, 0
    state = load_last(path)[0] if path.is_dir() else load_checkpoint(path)
    if not isinstance(network := state.get("siamese"), dict):
        raise InputError(
            f"{path} is no checkpoint of a run of simsiam-zoo",
            "Those hold the network's five parts.",
        )
    return network, int(state.get("changes", 0))


def below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What stands behind a prefix in a state dict, by the rest of its keys."""
    return {k.removeprefix(prefix): value for k, value in state.items() if k.startswith(prefix)}


def _from_timm(source: str, settings: Mapping[str, object], preset: str | None) -> EvalTarget:
    import timm

    if preset is None and "dataset" not in settings:
        raise InputError(f"{source} comes with no data", "Say --data DATASET|SHARDS.")
    name, params = split_spec(source.removeprefix(LIBRARY))
    wanted = params.pop("pretrained", "true")
    if params or wanted not in ("true", "false"):
        raise InputError(f"{source}: the one parameter is pretrained, true or false")
    if not timm.is_model(name):
        catalog().resolve("backbone", LIBRARY + name)  # says which name is near
    # Last, since a data set may be packed for it.
    recipe = Recipe.make(preset, None, {"data.validation": "auto", **settings})
    config: Any = timm.get_pretrained_cfg(name)
    transform = Transform.of(recipe)
    if preset is None:
        if config is None:
            raise InputError(f"timm has no transform for {name}", "Say --preset NAME.")
        size, crop = int(config.input_size[-1]), float(config.crop_pct)
        transform = Transform(size, crop, tuple(config.mean), tuple(config.std))
    if (channels := recipe.data.channels) != len(transform.mean):
        raise InputError(f"{name}'s own transform is of three channels", "Say --preset NAME.")
    hint = f"Say {LIBRARY}{name}:pretrained=false for random ones."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        backbone = timm_backbone(
            name=name, image_size=transform.image_size, drop_path_rate=0.0, channels=channels
        )
        if wanted == "true":
            state = published(name, transform.image_size, backbone, hint, channels)
            load_into(backbone, state, f"{source} does not fit its backbone")
    called = f"{LIBRARY}{name}" + ("" if wanted == "true" else " at random")
    backbone = backbone.eval().to(memory_format=torch.channels_last)
    return EvalTarget(source, called, backbone, transform, recipe)


def published(
    name: str, image_size: int, backbone: nn.Module, hint: str, channels: int = 3
) -> dict[str, Tensor]:
    """The weights that timm has for the model `name`, as far as the backbone has such keys.

    `image_size` is for a model that is made for one size; timm makes a stem for other `channels`
    of the one for three. InputError with the `hint` where they cannot be had.
    """
    import timm

    config: Any = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise InputError(f"timm has no weights for {name}", hint)
    options: Any = {"img_size": image_size} if config.fixed_input_size else {}
    options |= {} if channels == 3 else {"in_chans": channels}
    tell(f"the weights of {LIBRARY}{name}: those in timm's cache, or else downloaded")
    try:
        _refuse_unreachable(config.hf_hub_id)
        model = timm.create_model(name, pretrained=True, num_classes=0, **options)
    except Exception as error:  # the hub's, the network's and the disk's own
        first_line = str(error).strip().partition("\n")[0]
        raise InputError(
            f"the weights of {LIBRARY}{name} cannot be had: {type(error).__name__}: {first_line}",
            hint,
        ) from error
    own = backbone.state_dict().keys()
    return {key: value for key, value in model.state_dict().items() if key in own}


def _refuse_unreachable(repository: str | None) -> None:
    """Raise what stands in the way of the hub, at once: a download tries for most of a minute.

    Nothing is asked where something of the repository is in the cache.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if repository is None:
        return
    try:
        snapshot_download(repository, local_files_only=True)
    except LocalEntryNotFoundError:
        with suppress(HfHubHTTPError):  # it answered: timm may know another file
            get_hf_file_metadata(hf_hub_url(repository, "model.safetensors"), timeout=_TIMEOUT)


def component_text(part: Resolved) -> str:
    """A component with the parameters that it was given: what weights are weights of."""
    given = ",".join(f"{key}={value}" for key, value in sorted(part.params.items()))
    return f"{part.id}:{given}" if given else part.id
