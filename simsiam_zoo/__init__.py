"""simsiam-zoo: SimSiam as five swappable parts. Importing this does not import torch.

    import simsiam_zoo as zoo

    run = zoo.train(zoo.Recipe.make("digits"))
    run.verdict, run.figures, run.backbone

What trains (`Recipe`, `Run`, `build`, `train`, `load`, `load_backbone`) is imported when it is
first used; what a plugin needs (`Component`, `Family`, `Param`, `hookimpl`) is light and here at
once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from simsiam_zoo.catalog.component import Component, Family, Param
from simsiam_zoo.catalog.hookspecs import hookimpl

if TYPE_CHECKING:
    from simsiam_zoo.exchange.backbone import load_backbone
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.training.run import Run, build, load, train

__all__ = [
    "Component",
    "Family",
    "Param",
    "Recipe",
    "Run",
    "build",
    "hookimpl",
    "load",
    "load_backbone",
    "train",
]

_HEAVY = {
    "Recipe": "simsiam_zoo.recipe",
    "load_backbone": "simsiam_zoo.exchange.backbone",
    **dict.fromkeys(("Run", "build", "load", "train"), "simsiam_zoo.training.run"),
}


def __getattr__(name: str) -> object:
    if name not in _HEAVY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HEAVY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
