"""The paper's ablations: an arm that docs/parts.md spells changes what it should, and no more."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from simsiam_zoo.catalog import PARTS, Text
from simsiam_zoo.model.build import build
from simsiam_zoo.recipe import Recipe

PAGE = Path(__file__).parents[2] / "docs" / "parts.md"
ARMS = dict(re.findall(r"^\| [^|]+ \| ([^|]+) \| `(--[^`]+)` \|$", PAGE.read_text(), re.MULTILINE))

HIDDEN = "fc2048 bn relu"
DEFAULT = {
    "projector": f"{HIDDEN} {HIDDEN} fc2048 bn-",
    "predictor": "fc512 bn relu fc2048+b",
    "trained": True,
    "predictor schedule": "constant",
    "warm-up": 0,
    "batch": 512,
    "policy": "StopGradient",
    "sides": "both",
    "views": 2,
    "blocks": 0,
    "loss": "CosineLoss",
}
CHANGES: dict[str, dict[str, Any]] = {
    "without stop-gradient": {"policy": "NoStopGradient"},
    "baseline: predictor lr decayed as well": {"predictor schedule": "cosine"},
    "no predictor": {"predictor": ""},
    "fixed random predictor": {"trained": False},
    "batch 1,024 or more: 10 epochs of warm-up": {"batch": 4096, "warm-up": 10},
    "no BN in the heads, 10 epochs of warm-up": {
        "projector": "fc2048+b relu fc2048+b relu fc2048+b",
        "predictor": "fc512+b relu fc2048+b",
        "warm-up": 10,
    },
    "BN on hidden layers": {"projector": f"{HIDDEN} {HIDDEN} fc2048+b"},
    "with scale and shift in the output's BN": {"projector": f"{HIDDEN} {HIDDEN} fc2048 bn"},
    "BN on the predictor's output too": {"predictor": "fc512 bn relu fc2048 bn"},
    "cross-entropy similarity": {"loss": "CrossEntropyLoss"},
    "one side": {"sides": "one"},
    "one side, two pairs": {"sides": "one", "views": 4},
    "targets for 10 steps at once": {"policy": "Alternation", "sides": None, "blocks": 10},
    "targets for an epoch at once": {"policy": "Alternation", "sides": None, "blocks": 2502},
    "moving average, no predictor": {"policy": "MovingAverage", "sides": None, "predictor": ""},
    "width 512, predictor's hidden width a quarter of it": {
        "projector": f"{HIDDEN} {HIDDEN} fc512 bn-",
        "predictor": "fc128 bn relu fc512+b",
    },
}


def settings(flags: str) -> dict[str, object]:
    words = shlex.split(flags)
    found: dict[str, object] = {}
    for flag, value in zip(words[0::2], words[1::2], strict=True):
        path, text = value.split("=", 1) if flag == "--set" else (flag.removeprefix("--"), value)
        found[{"batch-size": "training.batch_size"}.get(path, path)] = Text(text)
    return found


def layers(head: nn.Module) -> str:
    """What a head is made of, `-` where BN has no affine and `+b` where a fc layer has a bias."""
    words = []
    for module in head.children():
        if isinstance(module, nn.Linear):
            words.append(f"fc{module.out_features}{'' if module.bias is None else '+b'}")
        elif isinstance(module, nn.BatchNorm1d):
            words.append("bn" if module.affine else "bn-")
        else:
            words.append(type(module).__name__.lower())
    return " ".join(words)


def facts(flags: str = "") -> dict[str, Any]:
    """The arm as it would be trained; the backbone is a small one, which no arm is about."""
    recipe = Recipe.make("imagenet", settings={"backbone": "resnet10t", **settings(flags)})
    with torch.device("meta"):
        siamese = build(
            {kind: recipe.part(kind) for kind in PARTS},
            image_size=32,
            dataset_size=1_281_167,
            steps_per_epoch=2502,
            steps=250_200,
        )
    own = recipe.optim.part("predictor").schedule
    return {
        "projector": layers(siamese.projector),
        "predictor": layers(siamese.predictor),
        "trained": all(parameter.requires_grad for parameter in siamese.predictor.parameters()),
        "predictor schedule": recipe.optim.schedule if own == "inherit" else own,
        "warm-up": recipe.optim.warmup_epochs,
        "batch": recipe.training.batch_size,
        "policy": type(siamese.gradient).__name__,
        "sides": getattr(siamese.gradient, "sides", None),
        "views": siamese.gradient.views,
        "blocks": siamese.gradient.blocks,
        "loss": type(siamese.loss).__name__,
    }


def test_the_docs_spell_every_arm_once() -> None:
    assert ARMS.keys() == CHANGES.keys()
    assert facts() == DEFAULT


@pytest.mark.parametrize("arm", CHANGES)
def test_an_arm_changes_what_the_paper_says_and_nothing_else(arm: str) -> None:
    assert facts(ARMS[arm]) == DEFAULT | CHANGES[arm]
