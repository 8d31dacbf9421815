"""Fashion-MNIST: the base, without stop-gradient, without predictor; as many epochs as fit."""

from __future__ import annotations

import itertools
import json
import math
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from gpu_parts.part import Found, Part, Skipped, end_of
from shared.steps import bare_step, clock
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.training.batches import to_device, train_loader
from simsiam_zoo.training.setup import prepare

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
    runs = {name: start(part, name, chosen) for name in ARMS}
    for name, process in runs.items():
        part.case(name, partial(result, part, name, process))


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
    setup = prepare(recipe(part, 1000))
    device = setup.runtime.device
    batches = map(partial(to_device, setup), train_loader(setup, workers=part.cores).batches())
    setup.schedule.apply(setup.optimizer, 0)
    for batch in itertools.islice(batches, part.cores):
        bare_step(setup, batch)
    began, steps = clock(device), 0
    while time.perf_counter() - began < 3:
        bare_step(setup, next(batches))
        steps += 1
    speed = steps * setup.recipe.training.batch_size / (clock(device) - began)
    images = setup.plan.steps * setup.recipe.training.batch_size
    fit = (part.left - AROUND) * SHARE * speed / (len(ARMS) * images)
    if fit < 1:
        raise Skipped(f"no epoch of each run fits in {part.left:.0f} s at {speed:,.0f} images/s")
    return {"epochs": math.floor(fit), "images/s, one run alone": speed}


def start(part: Part, name: str, epochs: int) -> subprocess.Popen[str]:
    """An arm, by the command line."""
    file = part.folder / f"{name}.toml"
    file.write_text(recipe(part, epochs, **ARMS[name]).to_toml(), "utf-8")
    flags = ["train", "--recipe", str(file), "--out", str(part.folder / name)]
    with (part.folder / f"{name}.log").open("w") as log:
        command = [sys.executable, "-m", "simsiam_zoo", *flags]
        return subprocess.Popen(command, stdout=log, stderr=log, text=True)


def result(part: Part, name: str, process: subprocess.Popen[str]) -> Found:
    """What an arm came to. One that takes too long is stopped, and its last row is told."""
    folder = part.folder / name
    try:
        code = process.wait(timeout=max(1.0, part.left - 10))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=max(1.0, part.left - 2))
    if code != 0:
        told = end_of((part.folder / f"{name}.log").read_text("utf-8", "replace"))
        raise RuntimeError(f"{name} ended with {code}:\n{told}")
    found = json.loads((folder / "result.json").read_text("utf-8"))
    (knn,) = (each for each in found["figures"] if each["network"] == "trained network")
    evidence = found["evidence"]
    return {
        "verdict": found["verdict"],
        "kNN top-1": knn["top1"],
        "loss": evidence["last_loss"],
        "std x sqrt(d)": evidence["std_sqrt_d"],
        "effective rank": evidence["effective_rank"],
        "training, s": found["seconds"]["training"],
        "evaluation, s": found["seconds"]["evaluation"],
        "images/s": last_speed(folder),
    }


def last_speed(folder: Path) -> float:
    """The run's own, by its last row that states it."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text("utf-8").splitlines())
    return [row["images_per_second"] for row in rows if "images_per_second" in row][-1]
