"""Fashion-MNIST: the base, without stop-gradient, without predictor; as many epochs as fit."""

from __future__ import annotations

import math
import signal
import subprocess
from functools import partial
from typing import Any

from gpu_parts.command import Command, train, trained
from gpu_parts.part import Found, Part, Skipped
from gpu_parts.resident import speed_from_loader
from simsiam_zoo.recipe import Recipe

ARMS = {
    "base": {},
    "gradient none": {"gradient": "none"},
    "predictor none": {"predictor": "none"},
}
AROUND = 45.0  # seconds for the start of the runs and their evaluation
SHARE = 0.8  # of what the speed promises
PROTOCOL = "knn:k=200,t=0.1"


def run(part: Part) -> None:
    """All arms at once: they share the device, and their starts and evaluations overlap."""
    part.case("epochs", partial(epochs_that_fit, part))
    chosen = part.found("epochs").get("epochs")
    if chosen is None:
        return
    arms = list(ARMS)[: part.pick(None, 2)]
    runs = {name: train(part, name, recipe(part, chosen, **ARMS[name])) for name in arms}
    for name, command in runs.items():
        part.case(name, partial(result, part, name, command))


def recipe(part: Part, epochs: int, **parts: object) -> Recipe:
    """The paper's CIFAR-10 settings on grey images of clothes; in a rehearsal `digits`, tiny."""
    own: dict[str, Any] = {"training__epochs": epochs, "evaluation__protocols": [PROTOCOL]}
    own |= {"evaluation__baselines": False, "evaluation__online_epochs": 0}
    if part.rehearsal and part.fashion is None:
        return part.recipe(**own, **parts)
    if part.fashion is None:
        raise Skipped("no folder of Fashion-MNIST was given (--fashion)")
    own |= {"data__mean": [0.2860] * 3, "data__std": [0.3530] * 3}
    own["data__workers"] = max(1, part.cores // len(ARMS))
    return part.recipe("cifar10", dataset=str(part.fashion), **own, **parts)


def epochs_that_fit(part: Part) -> Found:
    """By the speed of the base, fed by all cores."""
    if part.rehearsal:
        recipe(part, 1)
        return {"epochs": 1, "images/s, one run alone": "-"}
    speed, images = speed_from_loader(part, recipe(part, 1000), part.cores)
    fit = (part.left - AROUND) * SHARE * speed / (len(ARMS) * images)
    if fit < 1:
        raise Skipped(f"no epoch of each run fits in {part.left:.0f} s at {speed:,.0f} images/s")
    return {"epochs": math.floor(fit), "images/s, one run alone": speed}


def result(part: Part, name: str, command: Command) -> Found:
    """What an arm came to. One that takes too long is stopped, and its last row is told."""
    try:
        command.process.wait(timeout=max(1.0, part.left - 10))
    except subprocess.TimeoutExpired:
        command.process.send_signal(signal.SIGTERM)
    command.ends()
    return trained(part.folder / name)
