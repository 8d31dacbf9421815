"""A run that has plainly collapsed is ended, and no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simsiam_zoo.recipe import Recipe
from simsiam_zoo.training import train as training
from simsiam_zoo.training.conclude import CollapseWatch
from simsiam_zoo.training.measuring import RunEvaluation
from simsiam_zoo.training.run_folder import read_metrics
from simsiam_zoo.training.setup import prepare

Run = Callable[..., tuple[Path, dict[str, Any]]]

COLLAPSING: dict[str, object] = {
    "backbone": "resnet10t",
    "training.stop_on_collapse": True,
    "training.epochs": 10,
    "gradient": "none",
    "predictor": "none",
    "projector": "mlp:layers=2,hidden_dim=32,out_dim=32,norm=none",
    "optim.lr": 0.2,
}


def test_a_run_that_collapses_is_ended_and_judged_and_again_after_an_interruption(
    run: Run, tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, result = run(COLLAPSING)
    assert result["verdict"] == "collapsed"
    stopped = result["stopped_on_collapse"]
    assert stopped == result["steps"] < 60
    assert stopped % 6 == 0  # at a look
    assert stopped >= 12  # seen twice
    assert max(row["step"] for row in read_metrics(folder)) == stopped
    assert json.loads((folder / "result.json").read_text()) == result
    # how it is logged does not decide where it ends
    other = {**COLLAPSING, "evaluation.online_epochs": 0, "logging.interval_steps": 4}
    assert run(other, "other")[1]["stopped_on_collapse"] == stopped

    class _Cut(Exception):
        pass

    def cut(*_: object) -> None:
        raise _Cut

    with monkeypatch.context() as patch:
        patch.setattr(training, "conclude", cut)
        with pytest.raises(_Cut):
            run(COLLAPSING, "cut")
    again, resumed = run(COLLAPSING, "cut", resume=True)
    assert read_metrics(again)[-1]["step"] == stopped
    assert {**resumed, "seconds": 0} == {**result, "seconds": 0}


def test_a_run_that_does_not_collapse_or_is_not_asked_to_end_goes_to_its_end(run: Run) -> None:
    _, result = run({"training.stop_on_collapse": True, "training.epochs": 10}, "healthy")
    assert result["verdict"] != "collapsed"
    assert (result["steps"], result["stopped_on_collapse"]) == (60, None)
    _, result = run({**COLLAPSING, "training.stop_on_collapse": False}, "not-asked")
    assert result["verdict"] == "collapsed"
    assert (result["steps"], result["stopped_on_collapse"]) == (60, None)


def history(looks: dict[int, tuple[float, float]]) -> list[dict[str, Any]]:
    """Rows of a run of 60 steps, with (spread, rank) at each look."""
    rows: list[dict[str, Any]] = [{"step": 1, "loss": -0.1, "std_sqrt_d": 0.9}]
    for step, (spread, rank) in looks.items():
        rows.append({"step": step, "loss": -0.99, "std_sqrt_d": spread})
        rows.append({"step": step, "effective_rank": rank})
    return rows


def watch_of(recipe: Recipe, folder: Path) -> CollapseWatch:
    setup = prepare(recipe)
    return CollapseWatch(setup, RunEvaluation(setup, folder))


POINT, FEW, HEALTHY = (0.01, 1.0), (0.9, 1.5), (0.9, 20.0)


@pytest.mark.parametrize(
    ("looks", "stops"),
    [
        ({6: POINT}, False),  # once
        ({6: POINT, 12: POINT}, True),
        ({6: FEW, 12: FEW}, True),
        ({6: POINT, 12: FEW}, True),
        ({6: HEALTHY, 12: POINT}, False),
        ({6: POINT, 12: HEALTHY}, False),
        ({6: POINT, 12: HEALTHY, 18: POINT}, False),  # not in a row
        ({12: POINT, 18: POINT}, True),
        ({6: POINT, 18: POINT}, False),
    ],
)
def test_it_takes_two_looks_in_a_row(tiny, monkeypatch, tmp_path, looks, stops) -> None:
    watch = watch_of(tiny(COLLAPSING), tmp_path)
    monkeypatch.setattr(CollapseWatch, "_untrained_rank", 10.0)
    assert watch.stops(history(looks)) == (max(looks) if stops else None)


def test_it_waits_for_the_warm_up_and_knows_what_was_narrow_from_the_start(
    tiny, monkeypatch, tmp_path
) -> None:
    rows = history({6: FEW, 12: FEW})
    monkeypatch.setattr(CollapseWatch, "_untrained_rank", 1.4)
    assert watch_of(tiny(COLLAPSING), tmp_path).stops(rows) is None
    monkeypatch.setattr(CollapseWatch, "_untrained_rank", 10.0)
    warm = {**COLLAPSING, "optim.warmup_epochs": 2.0}
    assert watch_of(tiny(warm), tmp_path).stops(rows) is None
    assert watch_of(tiny(COLLAPSING), tmp_path).stops(rows) == 12


def test_nothing_is_watched_unless_it_is_asked_for(tiny, tmp_path) -> None:
    watch = watch_of(tiny({**COLLAPSING, "training.stop_on_collapse": False}), tmp_path)
    assert watch.stops(history({6: POINT, 12: POINT})) is None
    assert not any(watch.due(step) for step in range(61))
