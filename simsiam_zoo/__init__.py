"""simsiam-zoo: SimSiam as five swappable parts. Importing this does not import torch.

    import simsiam_zoo as zoo

    run = zoo.train(zoo.Recipe.make("digits"))
    run.verdict, run.top1("knn"), run.backbone

The names are imported when they are first used. What a plugin needs is in `simsiam_zoo.plugin`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simsiam_zoo.api.data import index, inspect, pack
    from simsiam_zoo.api.doctor import doctor
    from simsiam_zoo.api.features import embed, look
    from simsiam_zoo.api.found import compare, runs
    from simsiam_zoo.api.keys import explain_key
    from simsiam_zoo.api.measure import evaluate, export
    from simsiam_zoo.api.names import (
        list_components,
        list_plugins,
        new_plugin,
        show_component,
        use_plugin,
    )
    from simsiam_zoo.api.studies import ablate, plan_study, write_report
    from simsiam_zoo.api.tuning import tune
    from simsiam_zoo.exchange.importing import import_checkpoint
    from simsiam_zoo.exchange.weights import load_backbone
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.testing.conformance import check_plugin
    from simsiam_zoo.training.run import Run, build, load, train

__all__ = ["Recipe", "Run", "ablate", "build", "check_plugin", "compare", "doctor", "embed"]
__all__ += ["evaluate", "explain_key", "export", "import_checkpoint", "index", "inspect"]
__all__ += ["list_components", "list_plugins", "load", "load_backbone", "look", "new_plugin"]
__all__ += ["pack", "plan_study", "runs", "show_component", "train", "tune", "use_plugin"]
__all__ += ["write_report"]

_HOMES = {
    "Recipe": "recipe",
    **dict.fromkeys(("Run", "build", "load", "train"), "training.run"),
    **dict.fromkeys(("evaluate", "export"), "api.measure"),
    **dict.fromkeys(("embed", "look"), "api.features"),
    **dict.fromkeys(("ablate", "plan_study", "write_report"), "api.studies"),
    "tune": "api.tuning",
    **dict.fromkeys(("compare", "runs"), "api.found"),
    **dict.fromkeys(("index", "inspect", "pack"), "api.data"),
    "import_checkpoint": "exchange.importing",
    "load_backbone": "exchange.weights",
    **dict.fromkeys(("list_components", "show_component"), "api.names"),
    **dict.fromkeys(("list_plugins", "new_plugin", "use_plugin"), "api.names"),
    "explain_key": "api.keys",
    "check_plugin": "testing.conformance",
    "doctor": "api.doctor",
}
"""Each public name, and the module below this package that has it."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name != "Recipe":  # which needs no torch
        import_module("simsiam_zoo.runtime.machine").wait_briefly()
    home = import_module(f"{__name__}.{_HOMES[name]}")
    value = globals()[name] = getattr(home, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
