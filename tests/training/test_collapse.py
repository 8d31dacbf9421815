"""A run that has plainly collapsed is ended, and no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simsiam_zoo.recipe import Recipe
from simsiam_zoo.training import train as training
from simsiam_zoo.training.collapse import CollapseWatch
from simsiam_zoo.training.record import read_metrics
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
    other = {**COLLAPSING, "logging.knn_epochs": 0, "logging.interval_steps": 4}
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
def test_it_takes_two_looks_in_a_row(tiny, monkeypatch, looks, stops) -> None:
    watch = CollapseWatch(prepare(tiny(COLLAPSING)))
    monkeypatch.setattr(CollapseWatch, "_untrained_rank", 10.0)
    assert watch.stops(history(looks)) == (max(looks) if stops else None)


def test_it_waits_for_the_warm_up_and_knows_what_was_narrow_from_the_start(
    tiny, monkeypatch
) -> None:
    rows = history({6: FEW, 12: FEW})
    monkeypatch.setattr(CollapseWatch, "_untrained_rank", 1.4)
    assert CollapseWatch(prepare(tiny(COLLAPSING))).stops(rows) is None
    monkeypatch.setattr(CollapseWatch, "_untrained_rank", 10.0)
    warm = {**COLLAPSING, "optim.warmup_epochs": 2.0}
    assert CollapseWatch(prepare(tiny(warm))).stops(rows) is None
    assert CollapseWatch(prepare(tiny(COLLAPSING))).stops(rows) == 12


def test_nothing_is_watched_unless_it_is_asked_for(tiny) -> None:
    watch = CollapseWatch(prepare(tiny({**COLLAPSING, "training.stop_on_collapse": False})))
    assert watch.stops(history({6: POINT, 12: POINT})) is None
    assert not any(watch.is_look(step) for step in range(61))


def test_the_looks_images_are_decoded_once_and_the_figures_stay_the_same(
    tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simsiam_zoo.data.shards import ShardSet
    from simsiam_zoo.training import monitor

    reads: list[int] = []
    read = ShardSet.read
    monkeypatch.setattr(ShardSet, "read", lambda self, id: reads.append(id) or read(self, id))
    setup = prepare(tiny())
    first = monitor.look(setup)
    decoded = len(reads)
    assert decoded == 48 + 64
    assert monitor.look(setup) == first
    assert monitor.embedding_rank(setup, setup.siamese) == first["effective_rank"]
    assert len(reads) == decoded

    monkeypatch.setattr(monitor, "KEPT_BYTES", 48 * 3 * 16 * 16)  # room for the first only
    setup = prepare(tiny())
    assert monitor.look(setup) == monitor.look(setup) == first
    assert len(reads) - decoded == 48 + 64 + 64
