"""Everything that a plugin may import. Version 1, as in the entry-point group `simsiam_zoo.v1`.

    from simsiam_zoo.plugin import Component, Param, hookimpl

Importing this module does not import torch. The descriptors, the hook's marker and the errors are
here at once; the other names are imported when they are first used. All names keep their meaning
as long as the group is called `simsiam_zoo.v1`; what is not listed here may change at any time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from simsiam_zoo.catalog import Component, Family, Param, create_component, hookimpl
from simsiam_zoo.errors import DataError, InputError, PluginError

if TYPE_CHECKING:
    from simsiam_zoo.components.augmentations import SimSiamAugmentation, random_resized_box
    from simsiam_zoo.data.draws import Augmentation
    from simsiam_zoo.data.image import ViewParams, render_view
    from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
    from simsiam_zoo.data.shards import Dataset
    from simsiam_zoo.data.sources import open_shards
    from simsiam_zoo.evaluation.epochs import train_epochs
    from simsiam_zoo.evaluation.protocol import (
        EvaluationProtocol,
        Features,
        FeatureSplits,
        NetworkImages,
        Score,
        check_labels,
        make_score,
    )
    from simsiam_zoo.exchange.export import ExportFormat, ExportSource
    from simsiam_zoo.model.backbones import TimmRecipe
    from simsiam_zoo.model.siamese import Batch, GradientPolicy, Loss, Part, Siamese, StepOutput
    from simsiam_zoo.runtime.distributed import gather, mean, rank, total, world_size
    from simsiam_zoo.runtime.folders import atomic_write_text, cache_dir, run_title
    from simsiam_zoo.studies.die_with_parent import die_with_parent
    from simsiam_zoo.studies.launcher import (
        LOG,
        Launcher,
        LaunchError,
        Resources,
        thread_variables,
    )
    from simsiam_zoo.training.run_folder import Logger

__all__ = ["LOG", "Augmentation", "Batch", "Component", "DataError", "Dataset"]
__all__ += ["EvaluationProtocol", "ExportFormat", "ExportSource", "Family", "FeatureSplits"]
__all__ += ["Features", "GradientPolicy", "InputError", "LaunchError", "Launcher", "Logger", "Loss"]
__all__ += ["NetworkImages", "PackedSample", "Param", "Part", "PluginError", "Resources", "Score"]
__all__ += ["Siamese", "SimSiamAugmentation", "StepOutput", "TimmRecipe", "ViewParams"]
__all__ += ["atomic_write_text", "cache_dir", "check_labels", "create_component", "die_with_parent"]
__all__ += ["gather", "hookimpl", "make_score", "mean", "open_shards", "pack_dataset"]
__all__ += ["random_resized_box", "rank", "render_view", "run_title", "thread_variables", "total"]
__all__ += ["train_epochs", "world_size"]

_HOMES = {
    "components.augmentations": ("SimSiamAugmentation", "random_resized_box"),
    "data.draws": ("Augmentation",),
    "data.image": ("ViewParams", "render_view"),
    "data.packing.writer": ("PackedSample", "pack_dataset"),
    "data.shards": ("Dataset",),
    "data.sources": ("open_shards",),
    "evaluation.epochs": ("train_epochs",),
    "evaluation.protocol": (
        "EvaluationProtocol",
        "FeatureSplits",
        "Features",
        "NetworkImages",
        "Score",
        "check_labels",
        "make_score",
    ),
    "model.backbones": ("TimmRecipe",),
    "model.siamese": ("Batch", "GradientPolicy", "Loss", "Part", "Siamese", "StepOutput"),
    "exchange.export": ("ExportFormat", "ExportSource"),
    "runtime.distributed": ("gather", "mean", "rank", "total", "world_size"),
    "runtime.folders": ("atomic_write_text", "cache_dir", "run_title"),
    "studies.die_with_parent": ("die_with_parent",),
    "studies.launcher": ("LOG", "LaunchError", "Launcher", "Resources", "thread_variables"),
    "training.run_folder": ("Logger",),
}
"""Where the names live that need torch, or time; a test compares them with the imports above."""

_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"simsiam_zoo.{_HOME_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
