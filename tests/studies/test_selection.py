"""`--only` and `--again`: some arms of a study, and some of them anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock
from played import Played, plan_of, run_selected, states

from simsiam_zoo.errors import InputError, StoppedError
from simsiam_zoo.studies import running
from simsiam_zoo.studies.estimate import describe_plan
from simsiam_zoo.studies.results import collect_results
from simsiam_zoo.studies.selection import Selection, select

SAME = {"part": "training.batch_size", "action": "replace", "with": 64, "label": "batch 64"}
PARTS = {"part": "predictor", "action": "remove", "label": "no predictor"}
SKIPPED = {"part": "projector", "action": "remove", "skip": "not today"}


def test_an_arm_is_known_by_its_name_and_its_label_and_by_what_it_equals() -> None:
    plan = plan_of(PARTS, SAME)
    chosen = select(plan, ["no predictor", "batch 64"], ["gradient-none", "stop-gradient removed"])
    assert chosen.only == ("predictor-none", "base")
    assert chosen.again == ("gradient-none", "gradient-none")
    assert select(plan, "no predictor", []).only == ("predictor-none",)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("no predicter", "no arm 'no predicter'\n  Did you mean no predictor"),
        ("gradient-nune", "Did you mean gradient-none"),
        ("zzz", "Its arms are base, gradient-none"),
        ("projector removed", "arm 'projector removed' is not run: not today"),
        ("twice", "several arms are called 'twice'\n  Say lr-1 or lr-2"),
    ],
)
def test_what_is_no_arm_is_told_with_the_nearest(word: str, says: str) -> None:
    twice = [
        {"part": "optim.lr", "action": "replace", "with": lr, "label": "twice"} for lr in (1, 2)
    ]
    with pytest.raises(InputError) as told:
        select(plan_of(PARTS, SKIPPED, *twice), [word], [])
    assert says in str(told.value)


def test_only_runs_those_arms_and_the_report_shows_what_is_there(tmp_path: Path) -> None:
    launcher = Played()
    run_selected(plan_of(PARTS), tmp_path, launcher, Selection(only=("predictor-none",)))
    assert {name.partition("-")[0] for name in launcher.order} == {"predictor"}
    assert states(tmp_path) == {
        "base": ["waiting"] * 2,
        "gradient-none": ["waiting"] * 2,
        "predictor-none": ["done"] * 2,
    }
    described = describe_plan(plan_of(PARTS), tmp_path, 1, Selection(only=("predictor-none",)))
    assert (described["runs"], described["runs_left"]) == (2, 0)
    anew = Selection(("predictor-none",), ("predictor-none",))
    described = describe_plan(plan_of(PARTS), tmp_path, 1, anew)
    assert described["runs_left"] == 2
    assert described["seconds"] > 0
    rest = Played()
    run_selected(plan_of(PARTS), tmp_path, rest, Selection())
    assert len(rest.order) == 4


def test_again_keeps_what_was_there_under_another_name(tmp_path: Path) -> None:
    plan = plan_of(PARTS)
    run_selected(plan, tmp_path, Played(), Selection())
    key = next(arm.key for arm in plan.arms if arm.name == "gradient-none")
    mark = Path("run") / "mark"
    for name in ("first", "second"):
        (tmp_path / "jobs" / key / "seed0" / mark).write_text(name)
        again = Played()
        run_selected(plan, tmp_path, again, Selection(again=("gradient-none",)))
        assert again.order == [f"{key}/seed0", f"{key}/seed1"]
    kept = [tmp_path / "jobs" / f"{key}.earlier-{number}" for number in (1, 2)]
    assert [(each / "seed0" / mark).read_text() for each in kept] == ["first", "second"]
    result = json.loads((kept[0] / "seed1" / "run" / "result.json").read_text())
    assert result["verdict"] == "collapsed"
    assert not (tmp_path / "jobs" / key / "seed0" / mark).exists()
    assert collect_results(tmp_path)["stale"] == [f"jobs/{each.name}" for each in kept]
    assert all(found == ["done"] * 2 for found in states(tmp_path).values())


def test_again_with_fewer_seeds_leaves_the_others(tmp_path: Path) -> None:
    run_selected(plan_of(), tmp_path, Played(), Selection())
    launcher = Played()
    only_base = Selection(only=("base",), again=("gradient-none",))
    run_selected(plan_of(seeds=(1,)), tmp_path, launcher, only_base)
    assert [each.rpartition("/")[2] for each in launcher.order] == ["seed1"]
    assert states(tmp_path)["gradient-none"] == ["done"]
    (earlier,) = (tmp_path / "jobs").glob("gradient-none-*.earlier-1")
    assert [each.name for each in earlier.iterdir()] == ["seed1"]


def test_a_run_that_is_at_work_is_not_moved(tmp_path: Path) -> None:
    plan = plan_of()
    run_selected(plan, tmp_path, Played(), Selection())
    first, second = [job.folder for job in plan.jobs(tmp_path) if job.arm.is_base]
    with (
        FileLock(second / "lock", thread_local=False),
        pytest.raises(InputError, match="a process is at work in"),
    ):
        run_selected(plan, tmp_path, Played(), Selection(again=("base",)))
    assert (first / "run" / "result.json").exists()


def test_what_goes_on_with_a_stopped_selection_is_not_begun_anew(tmp_path, monkeypatch) -> None:
    class Asked:
        requested = True

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(running, "StopRequest", Asked)
    with pytest.raises(StoppedError) as told:
        run_selected(plan_of(), tmp_path, Played(), Selection(("base",), ("gradient-none",)))
    hint = "Go on with: simsiam-zoo ablate played --only base --only gradient-none"
    assert told.value.hint == hint


def test_an_arm_without_a_label_is_called_by_what_is_done() -> None:
    changes = [{"epoch": 0.5, "gradient": "none"}]
    arms = plan_of(
        {"part": "predictor", "action": "remove"},
        {"grid": {"predictor.hidden_dim": [32], "training.batch_size": [16]}},
        {"set": {"change": changes}},
        {"part": "optim.lr", "action": "replace", "with": [0.125]},
        {"part": "predictor", "action": "replace", "with": ["none"]},
    ).arms
    assert [arm.label for arm in arms if not arm.is_base][-5:] == [
        "predictor removed",
        "predictor hidden dim 32, batch size 16",
        "from 50 % of the run on: gradient none",
        "lr 0.125",
        "predictor: none",  # the short one is taken
    ]
