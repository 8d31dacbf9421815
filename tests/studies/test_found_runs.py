"""The runs below a folder: found, told apart, asked for, and the best of them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from filelock import FileLock
from made_runs import KNN, make_run

from simsiam_zoo.errors import InputError
from simsiam_zoo.studies.compared_runs import best, differing, sort, where
from simsiam_zoo.studies.found_runs import FoundRun, age, find_runs, named_run


def names(runs: list[FoundRun]) -> list[str]:
    return [run.folder.name for run in runs]


def test_runs_are_found_newest_first_in_studies_too_and_nothing_else_is_one(
    tmp_path: Path,
) -> None:
    make_run(tmp_path / "old", age=50)
    make_run(tmp_path / "new", age=1)
    job = make_run(tmp_path / "study" / "jobs" / "base-1" / "seed0" / "run", age=20)
    (job.parent / "recipe.toml").write_text("")  # the job's own
    (tmp_path / "study" / "jobs" / "base-1" / "seed1").mkdir()
    (tmp_path / "study" / "jobs" / "base-1" / "seed1" / "recipe.toml").write_text("")  # waits
    (tmp_path / "old" / "features" / "deep").mkdir(parents=True)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "result.json").write_text("{}")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert names(find_runs([tmp_path, tmp_path / "old"])) == ["new", "run", "old"]
    with pytest.raises(InputError, match="no folder"):
        find_runs([tmp_path / "none"])


def test_the_state_is_what_the_files_and_the_lock_say(tmp_path: Path) -> None:
    make_run(tmp_path / "a-complete")
    running = make_run(tmp_path / "b-running", verdict=None)
    (running / "metrics.jsonl").write_text('{"step": 9, "epoch": 3}\n{"step": 1')
    saved = make_run(tmp_path / "c-resumable", verdict=None)
    (saved / "checkpoints").mkdir()
    (saved / "checkpoints" / "last.pt").touch()
    (saved / ".lock").touch()  # of a process that was killed
    make_run(tmp_path / "d-failed", verdict=None)
    job = make_run(tmp_path / "e-job" / "run", verdict=None)
    (job / "checkpoints").mkdir()
    (job / "checkpoints" / "last.pt").touch()
    (job.parent / "status.json").write_text('{"exit_code": 4, "error": "a shard\\nis damaged"}')
    (make_run(tmp_path / "f-damaged") / "result.json").write_text('{"verdict": ')
    (make_run(tmp_path / "g-damaged") / "recipe.toml").write_bytes(b"\xff = [[[")
    (make_run(tmp_path / "h-odd") / "result.json").write_text('{"verdict": "x", "figures": [3]}')
    imported = make_run(tmp_path / "i-imported", verdict=None)
    (imported / "checkpoints").mkdir()
    (imported / "checkpoints" / "last.pt").touch()
    (imported / "lock.toml").write_text("[imported]\nsource = 'moco.pth.tar'\n")
    stopped = make_run(tmp_path / "j-job" / "run", verdict=None)
    (stopped / "checkpoints").mkdir()
    (stopped / "checkpoints" / "last.pt").touch()
    (stopped.parent / "status.json").write_text('{"exit_code": 75, "error": "stopped at step 16"}')
    with FileLock(running / ".lock"):
        found = {run.folder: run for run in find_runs([tmp_path])}
    states = [run.state for _, run in sorted(found.items())]
    expected = "complete running resumable failed failed failed failed complete imported resumable"
    assert states == expected.split()
    whys = [run.why or "" for _, run in sorted(found.items())]
    assert whys[4] == "a shard is damaged"
    assert "checkpoint" in whys[3]
    assert "result.json is damaged" in whys[5]
    assert "recipe.toml cannot be read" in whys[6]
    assert not any("\n" in why for why in whys)


def test_what_differs_is_told_among_runs_of_a_preset_and_of_a_component(tmp_path: Path) -> None:
    make_run(tmp_path / "a", {"data.workers": 1})  # operational: it decides nothing
    make_run(tmp_path / "b", {"optim.lr": 2.0})
    make_run(tmp_path / "c", {"predictor": {"name": "none"}})
    runs = sorted(find_runs([tmp_path]), key=lambda run: run.folder)
    a, b, c = differing(runs)
    assert a == {"predictor": "mlp", "optim.lr": 1.0}  # and no hidden_dim, which all mlp share
    assert b == {"predictor": "mlp", "optim.lr": 2.0}
    assert c == {"predictor": "none", "optim.lr": 1.0}
    assert differing(runs, usual=False) == [{}, {"optim.lr": 2.0}, {"predictor": "none"}]
    make_run(tmp_path / "d", {"preset": "mnist-5k", "training.epochs": 30})
    *_, d = differing(sorted(find_runs([tmp_path]), key=lambda run: run.folder))
    assert d == {"preset": "mnist-5k"}


def test_runs_are_asked_for_by_keys_figures_and_states(tmp_path: Path) -> None:
    make_run(tmp_path / "a", {"optim.lr": 0.5}, top1={KNN: 0.9}, age=1)
    make_run(tmp_path / "b", {"optim.lr": 10.0}, top1={KNN: 0.8}, age=2)
    make_run(tmp_path / "c", {"predictor": {"name": "none"}}, top1={KNN: 0.4}, verdict="collapsed")
    make_run(tmp_path / "d", verdict=None, age=3)
    runs = find_runs([tmp_path])
    for conditions, expected in [
        (["predictor.name=none"], "c"),
        (["predictor=none"], "c"),
        (["predictor!=none", "verdict=learned"], "ab"),
        (["optim.lr>1"], "b"),
        (["optim.lr<=1", "optim.lr>=1"], "cd"),
        (["predictor.hidden_dim=64"], "abd"),
        (["knn>70"], "ab"),
        (["knn>=0.8"], "ab"),
        (["state=failed"], "d"),
    ]:
        assert "".join(sorted(names(where(runs, conditions)))) == expected, conditions
    assert names(sort(runs, "knn")) == ["a", "b", "c", "d"]
    assert names(sort(runs, "optim.lr")) == ["a", "c", "d", "b"]  # 0.5, 1, 1, 10
    with pytest.raises(InputError, match=r"no run has 'optim\.lt'") as error:
        where(runs, ["optim.lt=1"])
    assert "optim.lr" in str(error.value)
    with pytest.raises(InputError) as error:
        sort(runs, "lr")
    assert error.value.hint == "Did you mean optim.lr?"
    with pytest.raises(InputError, match="KEY=VALUE"):
        where(runs, ["optim.lr"])


def test_the_best_is_chosen_on_validation_images_where_there_are_some(tmp_path: Path) -> None:
    make_run(tmp_path / "a", top1={KNN: 0.99}, digest="d1")
    held_out = {"data.validation": 0.2}
    make_run(tmp_path / "b", held_out, top1={KNN: 0.7}, measured_on="validation", digest="v")
    lr = {**held_out, "optim.lr": 3.0}
    make_run(tmp_path / "c", lr, top1={KNN: 0.8}, measured_on="validation", digest="v")
    make_run(tmp_path / "e", {"dataset.name": "other"}, top1={KNN: 0.5}, digest="o")
    runs = find_runs([tmp_path])
    one, other = sorted(best(runs, "knn"), key=lambda found: found["run"].folder)
    assert (one["run"].folder.name, one["next"].folder.name) == ("c", "b")
    assert one["differs"] == {"optim.lr": [3.0, 1.0]}
    assert (one["runs"], one["left_out"]) == (2, 1)
    assert one["difference"]["mean"] == pytest.approx(0.1)
    assert (other["run"].folder.name, other["next"]) == ("e", None)  # other data stand alone
    (alone,) = best(where(runs, ["measured_on=test", "dataset=digits"]), "knn")
    assert alone["figure"].measured_on == "test"
    with pytest.raises(InputError, match="no complete run has a figure of 'lin'") as error:
        best(runs, "lin")
    assert "knn" in str(error.value)


def test_a_protocol_is_named_by_its_word_or_with_its_parameters(tmp_path: Path) -> None:
    other = "knn (k=200, t=0.1)"
    (run,) = find_runs([make_run(tmp_path / "a", top1={KNN: 0.9, other: 0.8})])
    for word, found in [("knn", KNN), ("knn k=200", other), (other, other)]:
        figure = run.figure(word)
        assert figure is not None
        assert figure.protocol == found
    assert run.figure("kn") is None


def test_a_run_is_named_by_its_folder_its_job_or_its_name_in_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs/a"))
    make_run(Path("runs/study/jobs/base-1/seed0/run"))
    Path("runs/study/study.json").touch()
    assert named_run("runs/a").folder == named_run("a").folder == Path("runs/a")
    job = Path("runs/study/jobs/base-1/seed0/run")
    assert named_run("study/jobs/base-1/seed0").folder == job
    with pytest.raises(InputError, match="no run in runs/study") as error:
        named_run("runs/study")
    assert "simsiam-zoo runs runs/study" in str(error.value)


def test_figures_that_a_study_measured_after_a_run_are_the_runs_too(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "seed0" / "run", top1={KNN: 0.9})
    figure = {"protocol": "linear", "protocol_version": 1, "top1": 0.95, "test_images": 100}
    report = {"data": {"measured_on": "test"}, "figures": [figure]}
    (folder.parent / "figures.json").write_text(json.dumps(report))
    (run,) = find_runs([tmp_path])
    assert {name: found.top1 for name, found in run.figures.items()} == {KNN: 0.9, "linear": 0.95}


def test_two_hundred_runs_take_less_than_a_second(tmp_path: Path) -> None:
    for n in range(200):
        make_run(tmp_path / f"{n:03d}", {"optim.lr": float(n)}, top1={KNN: 0.9}, age=n)
    began = time.process_time()
    runs = find_runs([tmp_path])
    assert len(differing(runs)) == 200
    assert time.process_time() - began < 1.0


def test_ages_are_told_in_the_largest_unit_that_says_something() -> None:
    assert [age(s) for s in (-1, 43, 600, 5 * 3600, 4 * 86400)] == [
        "0 s",
        "43 s",
        "10 min",
        "5 h",
        "4 d",
    ]
