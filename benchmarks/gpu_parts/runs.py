"""Commands as users give them, on the device: presets, a change, protocols that train."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from gpu_parts.command import SIMSIAM_ZOO, Command, train, trained
from gpu_parts.inputs import FIVE, five_channels
from gpu_parts.part import Found, Part
from simsiam_zoo.recipe import Recipe

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", *SIMSIAM_ZOO)

SHARE: dict[str, Any] = {"data__workers": 1, "training__threads": 1}
"""Of the cores, for each of several runs at once."""

MEASURED = {"vit": "attentive-probe", "mnist-5k": "finetune"}
"""By which protocol, as soon as the run has ended."""


def run(part: Part) -> None:
    """All runs at once, since most of a short run's time is its start; then what they are for."""
    runs = {name: train(part, name.replace(" ", "-"), recipe) for name, recipe in recipes(part)}
    rank = changed(part, compiled=not part.rehearsal)
    runs["a change, compiled, torchrun"] = train(part, "torchrun", rank, TORCHRUN)
    evaluated: dict[str, Command] = {}
    for name, command in runs.items():
        part.case(name, partial(result, command))
        if protocol := MEASURED.get(name):
            flags = ["evaluate", str(part.folder / name), "--json", "--device", str(part.device)]
            flags += ["--protocol", f"{protocol}:epochs={part.pick(5, 1)}"]
            evaluated[protocol] = Command(part, protocol, *flags)
    for name, command in evaluated.items():
        part.case(name, partial(figures, command))


def recipes(part: Part) -> list[tuple[str, Recipe]]:
    """Of runs on one device. A rehearsal has one of them, tiny."""
    quick: dict[str, Any] = {"evaluation__protocols": ["knn"], "evaluation__online_epochs": 0}
    quick |= SHARE
    if part.rehearsal:
        vit = {"backbone": "vit:patch_size=8,embed_dim=16,depth=1,num_heads=2"}
        return [("vit", part.recipe(training__epochs=1, **quick, **vit))]
    few = quick | {"training__epochs": 4}
    bands: dict[str, Any] = {"dataset": str(five_channels(part.folder)), **FIVE}
    return [
        ("vit", part.recipe("vit-mnist-5k", **few)),
        ("mnist-5k", part.recipe("mnist-5k", **SHARE)),
        ("multi-crop", part.recipe("multi-crop-mnist-5k", **few)),
        (
            "DenseNet-121 without predictor",
            part.recipe("mnist-5k", backbone="densenet121", predictor="none", **few),
        ),
        ("five channels", part.recipe(**bands, **few)),
        ("a change", changed(part)),
    ]


def changed(part: Part, compiled: bool = False) -> Recipe:
    """Half of it without the stop-gradient and with another augmentation."""
    epochs = part.pick(4, 2)
    change = {"epoch": epochs // 2, "gradient": "none", "augmentation": "cifar"}
    return part.recipe(
        change=[change | {"reset": ["predictor"]}],
        training__epochs=epochs,
        training__compile=compiled,
        evaluation__protocols=["knn"],
        evaluation__online_epochs=0,
        **SHARE,
    )


def result(command: Command) -> Found:
    """A run's end."""
    command.ends()
    return trained(command.part.folder / command.name)


def figures(command: Command) -> Found:
    """Of a protocol, with the untrained network's beside it."""
    told, seconds = command.ends()
    report = json.loads(told)
    first, untrained = report["figures"][0], report.get("untrained", [])
    return {
        "protocol": first["protocol"],
        "top-1": first["top1"],
        "untrained": untrained[0]["top1"] if untrained else "-",
        "seconds": seconds,
    }
