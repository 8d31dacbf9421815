"""Results, plans, code and data that were damaged or changed since a study was planned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from played import Played, complete, only_job, plan_of, run, states
from tiny_runs import pack_digits

from simsiam_zoo.errors import DataError
from simsiam_zoo.studies.job import is_complete, run_job
from simsiam_zoo.studies.plan import plan_study
from simsiam_zoo.studies.results import collect_results
from simsiam_zoo.studies.study import parse_study


def test_a_run_whose_result_is_damaged_or_gone_is_run_again(tmp_path: Path) -> None:
    plan = plan_of(seeds=(0,))
    folder = only_job(plan, tmp_path)
    complete(folder)
    assert is_complete(folder, ())
    result = folder / "run" / "result.json"
    whole = json.loads(result.read_text())
    for text in ("{torn", "[]", json.dumps({**whole, "figures": [{"top1": "high"}]})):
        result.write_text(text)
        assert not is_complete(folder, ())
        (run_of_base,) = collect_results(tmp_path)["arms"][0]["runs"]
        assert run_of_base["state"] == "failed"
        assert "result.json is damaged" in run_of_base["error"]
    result.unlink()
    assert not is_complete(folder, ())
    launcher = Played()
    run(plan, tmp_path, launcher)
    assert len(launcher.order) == 2
    assert states(tmp_path)["base"] == ["done"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda plan: "{torn",
        lambda plan: "[]",
        lambda plan: json.dumps({**plan, "seeds": "all"}),
        lambda plan: json.dumps({**plan, "arms": []}),
        lambda plan: json.dumps({**plan, "arms": [{**plan["arms"][0], "key": "../../x"}]}),
        lambda plan: json.dumps({**plan, "arms": [{**plan["arms"][0], "same_as": "gone"}]}),
        lambda plan: json.dumps({**plan, "format": 99}),
    ],
)
def test_a_plan_that_is_damaged_is_told_in_words(tmp_path: Path, damage) -> None:
    run(plan_of(seeds=(0,)), tmp_path, Played())
    file = tmp_path / "study.json"
    file.write_text(damage(json.loads(file.read_text())))
    with pytest.raises(DataError, match=r"study\.json"):
        collect_results(tmp_path)


def test_an_arm_whose_code_was_edited_since_it_was_planned_is_not_run(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    """Else one seed would be of the code before, and another of the code after."""
    plan = plan_of(seeds=(0,))
    folder = only_job(plan, tmp_path)
    monkeypatch.setattr(
        "simsiam_zoo.recipe.lock.code_of", lambda components: {"simsiam-zoo": "source edited"}
    )
    assert run_job(folder, ()) == 2
    assert not (folder / "run").exists()
    assert "have changed since the study was planned" in capsys.readouterr().err
    assert not is_complete(folder, ())
    anew = plan_of(seeds=(0,))  # the same command again plans it anew, in another folder
    assert only_job(anew, tmp_path) != folder


def test_an_arm_whose_data_was_replaced_since_it_was_planned_is_not_run(
    tmp_path: Path, capsys
) -> None:
    shards = pack_digits(tmp_path / "shards", tuple("0123456789"))
    base = {"preset": "digits", "dataset": {"name": "shards", "path": str(shards)}}
    plan = plan_study("played", parse_study({"base": base}, "it"))
    folder = only_job(plan, tmp_path / "study")
    shutil.rmtree(shards)
    pack_digits(shards, tuple("0123456789"), 160)
    assert run_job(folder, ()) == 2
    assert "have changed since the study was planned" in capsys.readouterr().err
