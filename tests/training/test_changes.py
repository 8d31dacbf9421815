"""What is substituted in the middle of a run: its weights, its resume, what it leaves behind."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from stopped_runs import stop_after
from test_distributed_training import NORM_FREE, far_apart, run_script
from test_lookahead import same, stopped_at, weights

from simsiam_zoo import load
from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.report.run_page import render_run
from simsiam_zoo.runtime.checkpoint import load_last
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.studies.arms import make_arms
from simsiam_zoo.studies.study import read_study
from simsiam_zoo.training.batches import to_device, train_loader
from simsiam_zoo.training.changes import begin_stage
from simsiam_zoo.training.conclude import CollapseWatch
from simsiam_zoo.training.loop import take_step
from simsiam_zoo.training.measuring import RunEvaluation
from simsiam_zoo.training.run_folder import read_metrics
from simsiam_zoo.training.setup import Setup, prepare
from simsiam_zoo.training.train import train

Run = Callable[..., tuple[Path, dict[str, Any]]]
Tiny = Callable[..., Recipe]

QUICK: dict[str, object] = {
    "training.epochs": 3,
    "training.checkpoint_steps": 1,
    "backbone": "test_resnet:drop_path_rate=0.3",
    "evaluation.protocols": [],
    "evaluation.online_epochs": 0,
    "logging.interval_steps": 4,
}
FIRST = {
    "epoch": 1,
    "gradient": "none",
    "augmentation": "cifar",
    "optim.lr": 0.3,
    "reset": ["predictor"],
}
"""After 6 of 18 steps."""

CASES: dict[str, tuple[list[dict[str, object]], tuple[int, ...], int]] = {
    "everything": (
        [
            FIRST,
            {
                "epoch": 2,
                "gradient": "moving-average",
                "predictor": "none",
                "freeze": ["projector"],
            },
        ],
        (5, 6, 7, 13),
        8,
    ),
    "blocks": (
        [{"epoch": 1, "gradient": "alternation:k=4"}, {"epoch": 2, "loss": "mse"}],
        (12,),
        6,
    ),
}
"""Changes, after which steps the run is cut, and what a run that is stopped after 8 has saved."""


@pytest.mark.parametrize("case", CASES)
def test_a_run_interrupted_about_a_change_ends_as_if_it_had_not_been(
    run: Run, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    changes, cuts, saved = CASES[case]
    # It is cut where a row is written.
    recipe = tiny({**QUICK, "logging.interval_steps": 1, "change": changes})
    whole, result = run({**QUICK, "change": changes}, "whole")
    for step in cuts:
        folder = tmp_path / f"cut-{step}"
        stop_after(recipe, folder, step)
        again = train(recipe, folder, resume=True, progress=Progress())
        assert same(weights(folder), weights(whole)), step
        assert again["evidence"]["effective_rank"] == result["evidence"]["effective_rank"]
        assert again["changes"] == result["changes"]
    stopped = tmp_path / "stopped"
    stopped_at(8, recipe, stopped, monkeypatch)
    assert load_last(stopped / "checkpoints")[0]["step"] == saved
    train(recipe, stopped, resume=True, progress=Progress())
    assert same(weights(stopped), weights(whole))


def test_until_the_change_the_run_is_the_plain_one_and_then_one_of_the_other_recipe(
    tiny: Tiny, tmp_path: Path
) -> None:
    """By hand: the plain run's state after an epoch, in a run that has the other parts."""
    before = tmp_path / "before"
    stop_after(tiny({**QUICK, "logging.interval_steps": 1}), before, 6)
    settings = {**QUICK, "change": [{"epoch": 1, "gradient": "none", "optim.lr": 0.3}]}
    train(tiny(settings), tmp_path / "changed", progress=Progress())

    setup = prepare(tiny({**QUICK, "gradient": "none", "optim.lr": 0.3}))
    state = load_last(before / "checkpoints")[0]
    assert state["step"] == 6
    peaks = [group["peak_lr"] for group in setup.optimizer.param_groups]
    setup.siamese.load_state_dict(state["siamese"])
    setup.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
    for group, peak in zip(setup.optimizer.param_groups, peaks, strict=True):
        group["peak_lr"] = peak
    setup.siamese.train()
    for step, loaded in enumerate(train_loader(setup).batches(1, 0), start=6):
        take_step(setup, to_device(setup, loaded), step, want_norm=False)
    assert same(weights(tmp_path / "changed"), setup.siamese.state_dict())


def after_some_steps(setup: Setup, epoch: int) -> dict[str, torch.Tensor]:
    """A copy of the weights after the epoch's batches."""
    setup.siamese.train()
    batches = train_loader(setup).batches(epoch, 0)
    for step, loaded in enumerate(batches, start=epoch * setup.plan.steps):
        take_step(setup, to_device(setup, loaded), step, want_norm=False)
    return copy.deepcopy(setup.siamese.state_dict())


def test_what_a_change_does_not_name_keeps_its_weights_and_its_momentum(tiny: Tiny) -> None:
    change = {
        "epoch": 1,
        "freeze": ["projector"],
        "reset": ["predictor"],
        "optim.parts.backbone.lr_scale": 0.5,
    }
    setup = prepare(tiny({**QUICK, "change": [change]}))
    at_random = copy.deepcopy(setup.siamese.state_dict())
    before = after_some_steps(setup, 0)
    momentum = {
        name: setup.optimizer.state[parameter]["momentum_buffer"].clone()
        for name, parameter in setup.siamese.named_parameters()
    }
    lr = {group["part"]: group["peak_lr"] for group in setup.optimizer.param_groups}
    begin_stage(setup)
    for name, value in setup.siamese.state_dict().items():
        drawn = name.startswith("predictor") and name.endswith("weight") and value.ndim > 1
        assert torch.equal(value, before[name]) == (not name.startswith("predictor")), name
        assert not drawn or not torch.equal(value, at_random[name])  # another draw than the first
    for name, parameter in setup.siamese.named_parameters():
        kept = setup.optimizer.state.get(parameter, {}).get("momentum_buffer")
        if name.startswith("backbone"):
            assert torch.equal(kept, momentum[name])
        elif name.startswith("predictor"):
            assert not kept.any()
        else:
            assert kept is None
            assert not parameter.requires_grad
    now = {group["part"]: group["peak_lr"] for group in setup.optimizer.param_groups}
    assert now == {"backbone": 0.5 * lr["backbone"], "predictor": lr["predictor"]}
    later = after_some_steps(setup, 1)
    for name, _ in setup.siamese.named_parameters():
        moved = not torch.equal(later[name], before[name])
        assert moved == (not name.startswith("projector")), name


def test_a_changed_run_says_what_changed_and_its_rows_do_not_mix(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, text: said.append(text))
    changes = [
        {"epoch": 1, "loss": "mse:scale=100", "gradient.pairs": 2},
        {"epoch": 2, "predictor": "none"},
    ]
    measured = {"evaluation.baselines": True, "evaluation.protocols": ["knn:k=3"]}
    folder, result = run({**QUICK, **measured, "change": changes}, "changed")
    _, plain = run({**QUICK, **measured}, "plain")
    names = ["gradient stop-gradient, loss mse", "predictor none"]
    assert [line for line in said if line.startswith("from epoch")] == [
        f"from epoch {epoch} on: {name}" for epoch, name in enumerate(names, start=1)
    ]
    assert result["changes"] == [
        {"epoch": epoch, "step": 6 * epoch, "what": name}
        for epoch, name in enumerate(names, start=1)
    ]
    rows = [row for row in read_metrics(folder) if "loss" in row]
    assert [row["step"] for row in rows] == [1, 4, 6, 8, 12, 16, 18]
    assert all(row["loss"] < 1 < later["loss"] for row in rows[:3] for later in rows[3:])
    assert result["evidence"]["first_loss"] == rows[3]["loss"]  # one loss's first and last
    # The untrained network is measured as in a run without changes.
    untrained = [
        [f for f in each["figures"] if f["network"] == "untrained network"]
        for each in (result, plain)
    ]
    assert untrained[0] == untrained[1] != []
    drawn = ElementTree.parse(folder / "curves.svg").getroot()
    titles = [each.text for each in drawn.iter("{http://www.w3.org/2000/svg}title")]
    loaded = load(folder)
    for epoch, name in enumerate(names, start=1):
        assert titles.count(f"from epoch {epoch} on: {name}") > 3  # in each chart
        assert f"<dt>from epoch {epoch}</dt><dd>{name}</dd>" in render_run(loaded, None)
    state = load_last(folder / "checkpoints")[0]["siamese"]
    assert same(loaded.model.state_dict(), state)
    json.dumps(result)


def test_a_run_starts_from_the_weights_that_a_changed_run_ended_with(
    run: Run, tiny: Tiny, tmp_path: Path
) -> None:
    from simsiam_zoo import train as train_anew

    folder, _ = run({**QUICK, "change": [{"epoch": 1, "predictor": "linear"}]})
    for predictor, parts in (("linear", 3), ("mlp:hidden_dim=8", 2)):
        recipe = tiny({**QUICK, "predictor": predictor, "training.epochs": 1})
        begun = train_anew(recipe, tmp_path / predictor[:3], init=folder, quiet=True)
        assert len(begun.lock["init"]["parts"]) == parts


def test_what_cannot_be_built_later_is_refused_before_the_first_step(
    run: Run, tiny: Tiny, tmp_path: Path
) -> None:
    change = [{"epoch": 1, "gradient": "moving-average"}]
    stream = {"data.stream": True, "data.steps_per_epoch": 6, "data.views": "worker"}
    with pytest.raises(InputError, match="needs the ids of samples"):
        run({**QUICK, **stream, "change": change})
    assert not (tmp_path / "run" / "recipe.toml").exists()


def test_a_collapse_before_the_last_change_ends_no_run(tiny: Tiny, tmp_path: Path) -> None:
    settings = {"training.epochs": 10, "training.stop_on_collapse": True}
    fallen = [{"step": 1, "loss": -0.1, "std_sqrt_d": 0.9}]
    for step in range(6, 60, 6):
        fallen += [{"step": step, "loss": -0.99, "std_sqrt_d": 0.01}]
        fallen += [{"step": step, "effective_rank": 1.0}]
    ends = {}
    for name, change in (("plain", []), ("changed", [{"epoch": 5, "gradient": "none"}])):
        setup = prepare(tiny({**settings, "change": change}))
        watch = CollapseWatch(setup, RunEvaluation(setup, tmp_path))
        watch._untrained_rank = 20.0
        rows = (fallen[: 2 * epoch + 1] for epoch in range(1, 10))
        ends[name] = next(filter(None, map(watch.stops, rows)), None)
    assert ends == {"plain": 12, "changed": 42}


def test_two_processes_change_as_one_does(tiny: Tiny, tmp_path: Path) -> None:
    change = {"epoch": 1, "gradient": "moving-average", "predictor": "none", "reset": ["projector"]}
    settings = {**NORM_FREE, "training.epochs": 2, "change": [change | {"freeze": ["projector"]}]}
    recipe = tiny(settings)
    train(recipe, tmp_path / "one", progress=Progress())
    run_script(tmp_path, 2, [[recipe.to_toml(), "two", False, False]])
    assert far_apart(weights(tmp_path / "one"), weights(tmp_path / "two")) < 1e-9


def test_the_study_of_when_runs(tiny: Tiny, tmp_path: Path) -> None:
    _, study = read_study("when", "digits")
    quick = {**QUICK, "training.epochs": 4, "training.checkpoint_steps": 0}
    base = {key: value for key, value in tiny(quick).to_dict().items() if key != "preset"}
    arms = make_arms(study.changed({"base": {"preset": "digits", **base}}))
    told = {arm.label: arm.recipes[0].marks() for arm in arms}
    assert len(arms) == len({arm.identity for arm in arms}) == 8
    assert told["stop-gradient from the first quarter on"] == [(1, "gradient stop-gradient")]
    assert told["no stop-gradient in the last quarter"] == [(3, "gradient none")]
    assert told["predictor frozen in the second half"] == [(2, "predictor frozen")]
    assert told["never a stop-gradient"] == told["base"] == []
    for arm in (arms[2], arms[5]):  # the policy comes back; the predictor goes
        result = train(arm.recipes[0], tmp_path / arm.key, progress=Progress())
        assert [(each["epoch"], each["what"]) for each in result["changes"]] == told[arm.label]
