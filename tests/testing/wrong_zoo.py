"""A plugin whose components are each wrong in one way; the name says which check finds it."""

from simsiam_zoo.plugin import Component, Param, hookimpl

_WRONG = {
    "predictor": ("Parameters", "Inputs", "Gradients", "Ddp", "Compile", "Seed", "State", "Copies"),
    "projector": ("Shapes", "Autocast", "Run"),
    "backbone": ("ChannelsLast",),
    "loss": ("InfiniteSlope",),
    "gradient": ("OnePair", "Thawing"),
    "augmentation": ("Views", "Pixels", "Draws"),
    "dataset": ("samples", "same_again"),
    "protocol": ("Scores",),
    "logger": ("Rows",),
    "launcher": ("Jobs",),
    "format": ("Written",),
}
FOUND_BY = {
    "channels-last": "channels-last",
    "ddp": "gradients",
    "inputs": "shapes",
    "model": "recipe",
    "pixels": "views",
    "same-again": "samples",
    "target": "parameters",
    "infinite-slope": "gradients",
    "one-pair": "shapes",
    "thawing": "gradients",
}


def named(factory: str) -> str:
    words = "".join(f"-{c.lower()}" if c.isupper() else c for c in factory)
    return words.strip("-").replace("_", "-")


@hookimpl
def zoo_components():
    for kind, factories in _WRONG.items():
        for factory in factories:
            width = Param("width", int, 4, "Of nothing", min=1)
            yield Component(
                kind,
                named(factory),
                target=f"wrong_parts:{factory}",
                summary="Wrong",
                params=(width,) if factory == "Parameters" else (),
            )
    yield Component("predictor", "target", target="wrong_parts:Missing", summary="Wrong")
    yield Component("preset", "recipe", target="wrong_files:recipe.toml", summary="Wrong")
    yield Component("preset", "model", target="wrong_files:model.toml", summary="Wrong")
    yield Component("study", "arms", target="wrong_files:arms.toml", summary="Wrong")
