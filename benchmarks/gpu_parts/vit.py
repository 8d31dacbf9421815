"""Does SimSiam train a ViT on Fashion-MNIST? The base of the study `vit`.

Its candidates share the device. The whole study is too much for some minutes: on an H100 its runs,
eight at once, had not trained four epochs in 250 s.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
from functools import partial
from typing import Any

from gpu_parts.command import Command
from gpu_parts.part import TINY, Found, Part, Skipped
from gpu_parts.resident import speed_from_loader
from simsiam_zoo.recipe import Recipe

AT_ONCE = 3  # runs that share the device
COST = 2.2  # times the training: three candidates of half its length on 80 % of images, and itself
BATCH, LR = 256, "0.00025,0.0005,0.001"
"""Of many images a larger batch; AdamW's lr grows less than the batch does."""

AROUND = 60.0  # seconds for two rounds of starts and evaluations
SHARE = 0.8  # of what the speed of one run promises
STD, MEAN = 0.3530, 0.2860  # of Fashion-MNIST's pixels
TWO_ARMS = """
title = "A ViT, or a rehearsal of one"
base = { preset = "digits" }
[[ablation]]
part = "gradient"
action = "remove"
"""


def run(part: Part) -> None:
    """The study as it comes, on other data, with as many epochs as fit."""
    part.case("epochs", partial(epochs_that_fit, part))
    chosen = part.found("epochs").get("epochs")
    if chosen is None:
        return
    out = part.folder / "study"
    study = Command(part, "ablate", "ablate", *arguments(part, chosen), "--out", str(out))
    part.case("the study", partial(ended, part, study))
    results = out / "results.json"
    if results.is_file():
        base = json.loads(results.read_text("utf-8"))["arms"][0]
        part.case(base["label"], partial(of_arm, base))


def settings(part: Part, epochs: int) -> dict[str, object]:
    """Keys of the recipe."""
    own: dict[str, object] = {
        "training.epochs": epochs,
        "training.device": str(part.device),
        "evaluation.online_epochs": 0,
    }
    if part.rehearsal:
        return TINY | own | {"backbone": "vit:patch_size=8,embed_dim=16,depth=1,num_heads=2"}
    if part.fashion is None:
        raise Skipped("no folder of Fashion-MNIST was given (--fashion)")
    return own | {
        "dataset": str(part.fashion),
        "data.mean": [MEAN] * 3,
        "data.std": [STD] * 3,
        "data.workers": 1,
        "training.threads": 1,
        "training.precision": "auto",
        "training.batch_size": BATCH,
    }


def epochs_that_fit(part: Part) -> Found:
    """By the speed of the base."""
    if part.rehearsal:
        return {"epochs": 1, "images/s, one run alone": "-"}
    recipe = Recipe.make("vit-mnist-5k", None, settings(part, 1000))
    speed, images = speed_from_loader(part, recipe, workers=2)
    fit = (part.left - AROUND) * SHARE * speed / (COST * images)
    if fit < 1:
        raise Skipped(f"no epoch of each run fits in {part.left:.0f} s at {speed:,.0f} images/s")
    return {"epochs": math.floor(fit), "images/s, one run alone": speed}


def arguments(part: Part, epochs: int) -> list[str]:
    """Of `ablate`: the base of the package's study, or in a rehearsal of a tiny one."""
    keys = settings(part, epochs).items()
    said = [f"{key}={each if isinstance(each, str) else json.dumps(each)}" for key, each in keys]
    flags = [flag for each in said for flag in ("--set", each)] + [
        "--metric",
        "knn:k=20",
        "--only",
        "base",
    ]
    if part.rehearsal:
        file = part.folder / "study.toml"
        file.write_text(TWO_ARMS, "utf-8")
        return [str(file), *flags, "--seeds", "0", "--jobs", "1"]
    flags += ["--tune", f"optim.lr={LR}"]
    return ["vit", *flags, "--gpus", str(1 / AT_ONCE), "--jobs", str(AT_ONCE)]


def ended(part: Part, study: Command) -> Found:
    """When it has ended; where time is short, it is stopped and what is complete is told."""
    try:
        study.process.wait(timeout=max(1.0, part.left - 20))
    except subprocess.TimeoutExpired:
        study.process.send_signal(signal.SIGINT)
        study.process.wait(timeout=max(1.0, part.left - 2))
        return {"state": "stopped, since its time was up"}
    _, seconds = study.ends()
    return {"seconds": seconds}


def of_arm(arm: dict[str, Any]) -> Found:
    """What an arm came to on the test images, with the lr that validation images chose."""
    (run,) = arm["runs"]
    if run["state"] != "done":
        raise Skipped(f"it is {run['state']}")
    name, metric = next(iter(run["metrics"].items()))
    return {
        "chosen": json.dumps(arm["chosen"]),
        "verdict": run["verdict"],
        "kNN top-1": metric["top1"],
        "untrained": run["baselines"].get("untrained", {}).get(name, "-"),
        "loss": run["loss"],
        "effective rank": run["effective_rank"],
        "training, s": run["seconds"],
    }
