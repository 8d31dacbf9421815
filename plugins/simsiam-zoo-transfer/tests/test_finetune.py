"""Fine-tuning against a plain loop, torn off half-way, and as a run's end has it."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_network import CLASSES, TEST, TRAIN, Small, draw, splits, views
from torch import Tensor

import simsiam_zoo as zoo
from simsiam_zoo.evaluation import epochs
from simsiam_zoo.plugin import FeatureSplits, InputError, create_component
from simsiam_zoo.runtime.checkpoint import load_last
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.train import train


def finetune(**settings: object):
    given = {"epochs": 3, "batch": 16, "lr": 2.0, "head_lr": 4.0, **settings}
    return create_component("protocol", "finetune", **given)


def by_hand(network: Small) -> dict[str, Tensor]:
    """SGD with Nesterov momentum by its formula, in float64, on the same views."""
    generator = torch.Generator().manual_seed(0)
    head = torch.empty(CLASSES, 5).normal_(std=0.01, generator=generator)
    weights = {"backbone.layer.weight": network.layer.weight, "head.weight": head}
    weights |= {"backbone.layer.bias": network.layer.bias, "head.bias": torch.zeros(CLASSES)}
    weights = {k: w.detach().double().clone().requires_grad_() for k, w in weights.items()}
    velocity = {k: torch.zeros_like(w) for k, w in weights.items()}
    steps, done = TRAIN // 16, 0
    for epoch in range(3):
        for x, labels in views(epoch, 16):
            if done < steps:  # one epoch of warm-up
                factor = (done + 1) / (steps + 1)
            else:
                factor = 0.5 * (1 + math.cos(math.pi * (done - steps) / (2 * steps)))
            hidden = (
                x.double().flatten(1) @ weights["backbone.layer.weight"].T
                + weights["backbone.layer.bias"]
            )
            loss = F.cross_entropy(hidden @ weights["head.weight"].T + weights["head.bias"], labels)
            gradients = torch.autograd.grad(loss, [*weights.values()])
            for (name, w), g in zip(weights.items(), gradients, strict=True):
                if name.endswith("weight"):
                    g = g + 0.01 * w.detach()
                velocity[name] = 0.9 * velocity[name] + g
                rate = (4.0 if name.startswith("head") else 2.0) * 16 / 256 * factor
                w.data -= rate * (g + 0.9 * velocity[name])
            done += 1
    return {k: w.detach() for k, w in weights.items()}


def trained(folder: Path) -> dict[str, Tensor]:
    return load_last(folder / "version-1")[0]["model"]


def test_it_is_a_plain_loop_with_nesterov_momentum_by_its_formula(tmp_path: Path) -> None:
    expected = by_hand(Small())
    (score,) = finetune(wd=0.01)(splits(Small(), tmp_path))
    found = trained(tmp_path)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-4, atol=1e-6)
    x, labels = draw(TEST, 1)
    hidden = x.double().flatten(1) @ expected["backbone.layer.weight"].T
    hidden = hidden + expected["backbone.layer.bias"]
    predicted = (hidden @ expected["head.weight"].T + expected["head.bias"]).argmax(1)
    assert torch.equal(score.correct, predicted == labels)
    assert score.protocol == "finetune (sgd, lr=2, head_lr=4, batch=16, epochs=3)"
    assert (score.details["steps"], score.details["frozen"]) == (9, False)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_torn_off_it_goes_on_to_the_same_bits(optimizer, tmp_path, monkeypatch) -> None:
    """Dropout too: it is drawn from the seed and the epoch, whatever the caller's generator."""
    monkeypatch.setattr(epochs, "SAVE_SECONDS", 0.0)
    protocol = finetune(optimizer=optimizer, lr=0.01)
    (whole,) = protocol(splits(Small(0.5), tmp_path / "whole"))
    before = torch.manual_seed(7).get_state()
    with pytest.raises(KeyboardInterrupt):
        protocol(splits(Small(0.5), tmp_path / "torn", fail_in=2))
    (resumed,) = protocol(splits(Small(0.5), tmp_path / "torn"))
    assert torch.equal(torch.get_rng_state(), before)
    first, second = trained(tmp_path / "whole"), trained(tmp_path / "torn")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert resumed.details == whole.details
    other = finetune(optimizer=optimizer, lr=0.01, seed=1)
    other(splits(Small(0.5), tmp_path / "other"))
    assert not torch.equal(trained(tmp_path / "other")["head.weight"], first["head.weight"])


def test_what_cannot_be_is_refused() -> None:
    given = splits(Small())
    with pytest.raises(InputError, match="needs the network and its images"):
        finetune()(FeatureSplits(given.train, given.test, CLASSES))
    with pytest.raises(InputError, match="diverged in epoch 1 of 3"):
        finetune(lr=1e30)(given)


def test_a_runs_end_trains_the_trained_and_the_untrained_network_and_changes_neither(
    tiny, tmp_path: Path
) -> None:
    """The run's weights and its other figures are those of a run without it."""
    specs = ["knn:k=5", "finetune:epochs=1,batch=128,flip_p=0"]
    settings = {"evaluation.baselines": True}
    plain = train(tiny(**settings, **{"evaluation.protocols": specs[:1]}), tmp_path / "plain")
    lines: list[str] = []
    progress = Progress()
    progress.say = lines.append  # type: ignore[method-assign]
    recipe = tiny(**settings, **{"evaluation.protocols": specs})
    run = train(recipe, tmp_path / "run", progress=progress)
    files = [(tmp_path / name / "backbone.safetensors") for name in ("plain", "run")]
    first, second = (copy.deepcopy(zoo.load_backbone(file).state_dict()) for file in files)
    assert all(torch.equal(first[name], second[name]) for name in first)
    tuned = {f["network"]: f for f in run["figures"] if f["protocol"].startswith("finetune")}
    assert [*tuned] == ["trained network", "untrained network"]
    assert [f for f in run["figures"] if f["protocol"].startswith("knn")] == plain["figures"]
    costs = [
        line for line in lines if line.startswith("finetune: 1 epoch of 1,347 images, 10 steps")
    ]
    assert len(costs) == 2
    assert all(" parameters, about " in line for line in costs)
