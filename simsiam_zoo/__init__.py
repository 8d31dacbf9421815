"""simsiam-zoo: SimSiam as five swappable parts. Importing this does not import torch.

    import simsiam_zoo as zoo

    run = zoo.train(zoo.Recipe.make("digits"))
    run.verdict, run.figures, run.backbone

The names are imported when they are first used. What a plugin needs is in `simsiam_zoo.plugin`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simsiam_zoo.exchange.weights import load_backbone
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.training.run import Run, build, load, train

__all__ = [
    "Recipe",
    "Run",
    "build",
    "load",
    "load_backbone",
    "train",
]

_HEAVY = {
    "Recipe": "simsiam_zoo.recipe",
    "load_backbone": "simsiam_zoo.exchange.weights",
    **dict.fromkeys(("Run", "build", "load", "train"), "simsiam_zoo.training.run"),
}


def __getattr__(name: str) -> object:
    if name not in _HEAVY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name != "Recipe":  # which needs no torch
        import_module("simsiam_zoo.runtime.machine").wait_briefly()
    value = globals()[name] = getattr(import_module(_HEAVY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
