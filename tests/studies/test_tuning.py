"""Tuning: the same candidates for every arm, chosen on validation images alone."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import TINY

from simsiam_zoo.api.studies import _failure, _tune
from simsiam_zoo.cli.ablate import _tuned
from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.report.study import read_results
from simsiam_zoo.report.tuned import candidate_table, sensitivity, tuned
from simsiam_zoo.report.write import publish
from simsiam_zoo.studies.job import run_job
from simsiam_zoo.studies.launcher import Resources
from simsiam_zoo.studies.plan import StudyPlan, plan_study, write_plan
from simsiam_zoo.studies.running import StudyProgress, run_study
from simsiam_zoo.studies.study import Study, Tune, parse_study
from simsiam_zoo.studies.tuning import at_edge, choose, figures, has_reached, measured

LRS = [0.25, 0.5, 1.0, 2.0]
TREE: dict[str, Any] = {
    "base": {"preset": "digits"},
    "seeds": [0, 1],
    "tune": {"grid": {"optim.lr": LRS}, "seeds": [100, 101]},
    "ablation": [
        {"part": "predictor", "action": "remove", "label": "no predictor"},
        {"part": "projector", "action": "remove", "label": "no projector"},
    ],
}


def study_of(**changes: Any) -> Study:
    return parse_study(TREE | changes, "it")


class Played:
    """A launcher whose jobs end at once, with figures that the test makes of their recipes."""

    def __init__(self, top1: Any) -> None:
        self.top1, self.recipes = top1, list[tuple[str, int, Recipe]]()

    def submit(self, argv: Sequence[str], folder: Path, resources: Resources) -> str:
        recipe = Recipe.of_run(folder / "recipe.toml")
        name = folder.parent.name
        self.recipes.append((name, recipe.training.seed, recipe))
        share, verdict = self.top1(name, recipe)
        figure = {"network": "trained network", "protocol": "knn", "protocol_version": 2}
        figure |= {"top1": share, "test_images": 100}
        untrained = figure | {"network": "untrained network", "top1": 0.99}
        result = {"verdict": verdict, "reason": "as played", "identity": "x", "steps": 1}
        result["figures"] = [] if verdict == "diverged" else [untrained, figure]
        (folder / "run").mkdir(parents=True, exist_ok=True)
        if "--until" in argv:
            epoch = int(argv[argv.index("--until") + 1])
            row = {"step": 9, "epoch": epoch, "top1 knn": share}
            with (folder / "run" / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            (folder / "status.json").write_text(json.dumps({"exit_code": 75, "error": "stopped"}))
            return f"{len(self.recipes)}:75"
        (folder / "run" / "result.json").write_text(json.dumps(result))
        code = {"diverged": 5, "failed": 3}.get(verdict, 0)
        (folder / "status.json").write_text(json.dumps({"exit_code": code, "error": None}))
        return f"{len(self.recipes)}:{code}"

    def poll(self, job: str) -> int | None:
        return int(job.partition(":")[2])

    def cancel(self, job: str) -> None:
        raise AssertionError(job)


def played(name: str, recipe: Recipe) -> tuple[float, str]:
    """The base is best at 0.5, the projector at the largest; all without a predictor collapse."""
    at = LRS.index(recipe.optim.lr)
    if name.startswith("predictor"):
        return 0.2 + 0.01 * (at == 1), "collapsed"
    if name.startswith("projector"):
        return 0.5 + 0.1 * at, "collapsed" if at < 2 else "learned"
    return [0.6, 0.8, 0.7, 0.1][at], ["learned", "learned", "learned", "diverged"][at]


def run(study: Study, folder: Path, launcher: Played) -> StudyPlan:
    plan = choose(plan_study("played", study), study, folder)
    run_study(
        plan,
        folder,
        launcher,  # type: ignore[arg-type]
        jobs=2,
        resources=Resources(),
        progress=StudyProgress(None),
        choose=lambda plan: choose(plan, study, folder, ended=[arm.name for arm in plan.arms]),
    )
    return choose(plan_study("played", study), study, folder)


def test_every_arm_has_the_same_budget_and_its_best_is_trained_on_all_images(
    tmp_path: Path,
) -> None:
    launcher = Played(played)
    plan = run(study_of(), tmp_path, launcher)
    tuning = [each for each in launcher.recipes if "-tune-" in each[0]]
    reported = launcher.recipes[len(tuning) :]
    assert len(tuning) == 3 * 4 * 2
    assert len(reported) == 3 * 2
    of_arm = [
        sorted((r.optim.lr, seed) for name, seed, r in tuning if name.startswith(arm))
        for arm in ("base", "predictor", "projector")
    ]
    assert of_arm[0] == of_arm[1] == of_arm[2] == [(lr, s) for lr in LRS for s in (100, 101)]
    whole = Recipe.make("digits")
    for _, _, recipe in tuning:
        assert recipe.data.validation == 0.2
        assert recipe.training.epochs == round(whole.training.epochs / 2)
        assert recipe.evaluation.protocols == ("knn",)
    for name, seed, recipe in reported:
        assert recipe.data.validation == 0
        assert recipe.training.epochs == whole.training.epochs
        assert seed in (0, 1)
        best = {"base": 0.5, "predictor": 0.5, "projector": 2.0}[name.partition("-")[0]]
        assert recipe.optim.lr == best
    assert [arm.chosen for arm in plan.arms] == [{"optim.lr": lr} for lr in (0.5, 0.5, 2.0)]
    again = Played(played)
    run(study_of(), tmp_path, again)
    assert again.recipes == []


def test_halving_stops_the_worse_half_at_each_rung(tmp_path: Path) -> None:
    launcher = Played(played)
    tune = TREE["tune"] | {"length": 1, "halving": 2}
    study = study_of(tune=tune)
    plan = run(study, tmp_path, launcher)
    ran = Counter(
        (name.partition("-")[0], recipe.optim.lr)
        for name, _, recipe in launcher.recipes
        if "-tune-" in name
    )
    # Of four lrs, two come past the first rung and one past the second; each with two seeds.
    assert {lr: ran["base", lr] for lr in LRS} == {0.25: 2, 0.5: 6, 1.0: 4, 2.0: 2}
    assert {lr: ran["projector", lr] for lr in LRS} == {0.25: 2, 0.5: 2, 1.0: 4, 2.0: 6}
    assert [arm.chosen for arm in plan.arms] == [{"optim.lr": lr} for lr in (0.5, 0.5, 2.0)]
    epochs = Recipe.make("digits").training.epochs
    assert Tune(**tune).rungs(epochs) == [epochs // 4, 2 * (epochs // 4)]
    results = publish(tmp_path)
    stopped = [each["stopped"] for each in results["arms"][0]["candidates"]]
    assert stopped == [(epochs // 4, 0.6), None, (2 * (epochs // 4), 0.7), (epochs // 4, 0.1)]
    text = " ".join(tuned(read_results(results)))
    assert f"stopped after epoch {epochs // 4} and {2 * (epochs // 4)}." in text
    again = Played(played)
    run(study, tmp_path, again)
    assert again.recipes == []
    assert Tune(**tune).share(4, 20) == (4 * 5 + 2 * 5 + 1 * 10) / 80


def test_a_job_stops_at_its_rung_and_ends_as_if_it_had_not(
    digit_shards: Path, tmp_path: Path
) -> None:
    tree = {
        "base": TINY | {"preset": "digits", "dataset": str(digit_shards)} | {"training.epochs": 4},
        "tune": {"grid": {"optim.lr": [0.05]}, "length": 1, "halving": 1},
    }
    ended = []
    for name, runs in (("halved", [(2, 75), (0, 0)]), ("at once", [(0, 0)])):
        plan = plan_study("real", parse_study(tree, "it"))
        write_plan(plan, tmp_path / name)
        (job,) = plan.tuning_jobs(tmp_path / name)
        for rung, code in runs:
            assert run_job(job.folder, job.metrics, rung) == code
            assert has_reached(job.folder, 2)
        weights = load_file(job.folder / "run" / "backbone.safetensors")
        ended.append((weights, figures(job.folder), measured(job.folder)))
    (halved, *measured_then), (whole, *measured_at_once) = ended
    assert all(torch.equal(halved[name], whole[name]) for name in whole)
    assert measured_then == measured_at_once
    assert [*measured_then[0]] == [2]


def test_the_report_says_where_arms_collapsed_and_whose_best_is_an_edge(tmp_path: Path) -> None:
    run(study_of(), tmp_path, Played(played))
    results = publish(tmp_path)
    assert results["stale"] == []
    assert [arm["at_edge"] for arm in results["arms"]] == [[], [], ["optim.lr"]]
    study = read_results(results)
    text = " ".join(tuned(study))
    assert "4 candidates for optim.lr, 2 seeds, 0.5 of the epochs" in text
    assert "“no predictor” collapsed at 4 of 4 lr;" in text
    assert "“no projector” collapsed at 2 of 4 lr, learned at 1.0 and 2.0" in text
    assert "“base” diverged at 1 of 4 lr, learned at 0.25, 0.5 and 1.0" in text
    assert "“no projector” (lr 2.0)" in text
    table = candidate_table(study)
    assert table is not None
    assert [cell.text for cell in table[1][0]] == ["base", "lr 0.5", "60.0", "80.0", "70.0", "–"]
    assert [cell.verdict for cell in table[1][2]][2:] == ["collapsed"] * 2 + ["learned"] * 2
    chart = sensitivity(study)
    assert chart is not None
    assert chart.against == "lr"
    assert chart.x.log
    assert chart.lines[2].points == [(0.25, 50.0), (0.5, 60.0), (1.0, 70.0), (2.0, 80.0)]
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert len(rows) == 3 * 2 + 3 * 4 * 2
    assert {row["candidate"] for row in rows} == {""} | {f'{{"optim.lr": "{lr}"}}' for lr in LRS}
    page = (tmp_path / "report.html").read_text("utf-8")
    assert 'id="tuning-heading"' in page
    assert (tmp_path / "plots" / "sensitivity.svg").is_file()
    assert "## Tuning" in (tmp_path / "report.md").read_text("utf-8")


def test_an_arm_without_any_figure_is_not_run_and_one_failure_is_left_out(tmp_path: Path) -> None:
    def fails(name: str, recipe: Recipe) -> tuple[float, str]:
        if name.startswith("predictor") or recipe.optim.lr == 0.5:
            return 0.0, "diverged"
        return played(name, recipe)

    plan = run(study_of(), tmp_path, Played(fails))
    base, predictor, _ = plan.arms
    assert base.chosen == {"optim.lr": 1.0}
    assert predictor.not_run is not None
    assert "came to a figure" in predictor.not_run
    run(study_of(), tmp_path / "none", Played(lambda *_: (0.0, "diverged")))
    failed = _failure(publish(tmp_path / "none"), [])
    assert "the first one: no run that was to choose its values came to a figure" in str(failed)


def test_an_arm_that_is_the_base_in_other_words_has_the_values_of_the_base(tmp_path: Path) -> None:
    same = {"part": "gradient", "action": "replace", "with": "stop-gradient"}
    study, launcher = study_of(ablation=[*TREE["ablation"], same]), Played(played)
    plan = run(study, tmp_path, launcher)
    assert [arm.same_as for arm in plan.arms] == [None, None, None, "base"]
    assert plan.arms[3].chosen == {"optim.lr": 0.5}
    assert publish(tmp_path)["not_run"] == []
    assert len(launcher.recipes) == 3 * 4 * 2 + 3 * 2
    again = Played(played)
    run(study, tmp_path, again)
    assert again.recipes == []


def test_draws_from_ranges_are_even_by_logarithm_and_the_same_each_time() -> None:
    tune = Tune(ranges={"optim.lr": (0.01, 1.0)}, points=400)
    drawn = [each["optim.lr"] for each in tune.candidates()]
    assert drawn == [each["optim.lr"] for each in tune.candidates()]
    assert min(drawn) >= 0.01
    assert max(drawn) <= 1.0
    assert abs(np.mean(np.array(drawn) < 0.1) - 0.5) < 0.08


@pytest.mark.parametrize(
    ("tune", "said"),
    [
        ({}, "one of grid and ranges"),
        ({"grid": {"optim.lr": [1.0, 1.0]}}, "each once"),
        ({"grid": {"training.epochs": [1, 2]}}, "tune.length"),
        ({"grid": {"optim.lr": [1.0]}, "seeds": [1]}, "other ones than the seeds"),
        ({"grid": {"predictor": ["none", "mlp"]}}, "no arm substitutes predictor"),
        ({"ranges": {"optim.lr": [0.0, 1.0]}}, "above 0"),
    ],
)
def test_what_cannot_be_tuned_is_refused(tune: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        study_of(tune=tune)
    assert said in str(caught.value)


def test_parameters_of_a_component_that_is_tuned_are_not_substituted() -> None:
    tune = {"grid": {"augmentation": ["simsiam", "digits"]}}
    with pytest.raises(InputError, match=r"no arm substitutes augmentation\.min_scale"):
        study_of(tune=tune, ablation=[{"set": {"augmentation.min_scale": 0.3}}])


def test_an_edge_is_of_numbers() -> None:
    tried = [{"a": 1.0, "b": "x"}, {"a": 2.0, "b": "y"}, {"a": 3.0, "b": "x"}]
    assert at_edge({"a": 3.0, "b": "x"}, tried) == ["a"]
    assert at_edge({"a": 2.0, "b": "y"}, tried) == []
    assert at_edge({"a": [1, 2]}, [{"a": [1, 2]}, {"a": [1, 3]}]) == []


def test_one_run_is_tuned_about_its_own_values(
    zoo_here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.make("digits", settings={"training.seed": 100, "optim.lr": 0.4})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text(recipe.to_toml())

    def near_own(name: str, recipe: Recipe) -> tuple[float, str]:
        return 0.9 - abs(
            recipe.optim.lr - 0.4
        ) / 10, "learned" if recipe.optim.lr < 1 else "collapsed"

    launcher = Played(near_own)
    monkeypatch.setattr("simsiam_zoo.studies.launcher.create_launcher", lambda chosen: launcher)
    ended = zoo_here("tune", "run", "--points", "5", "--json", "--quiet")
    found = json.loads(ended.stdout)
    assert ended.returncode == 0, ended.stderr
    assert found.keys() == {"candidates", "chosen", "command"}  # as docs/reference.md has it
    assert len(launcher.recipes) == 6
    assert {seed for _, seed, _ in launcher.recipes} == {101}
    assert found["candidates"][0]["values"]["optim.lr"] == 0.4
    assert found["chosen"] == found["candidates"][0]["values"]
    assert "--set optim.lr=0.4 " in found["command"]
    lrs = [each["values"]["optim.lr"] for each in found["candidates"]]
    assert all(0.1 <= lr <= 1.6 for lr in lrs)
    told = zoo_here("tune", "run", "--points", "5").stdout
    assert "the run's own" in told
    page = (tmp_path / "run-tune" / "report.html").read_text()
    assert f"a search only; what it found is trained by: {found['command']}" in unescape(page)
    assert "Not complete" not in page
    assert "with an expectation" not in page
    assert "lr 0.4, lr_scale 1.0, min_scale" in page[page.index("Chosen") :]
    assert f"{sum(lr >= 1 for lr in lrs)} of 6 collapsed or diverged" in told
    refused = zoo_here("tune", "nowhere")
    assert refused.returncode == 2
    assert "no recipe.toml" in refused.stderr


def test_the_command_line_states_a_grid_and_keys_of_tune() -> None:
    words = ["optim.lr=0.25,0.5,1,2", "length=1", "seeds=7,8"]
    given = _tune(study_of(tune=None), _tuned(words))
    tune = study_of(tune=given).tune
    assert tune == Tune(grid={"optim.lr": (0.25, 0.5, 1, 2)}, length=1, seeds=(7, 8))
    (kept,) = (study_of(tune=_tune(study_of(), _tuned(["halving=2"]))).tune,)
    assert kept == Tune(**TREE["tune"], halving=2)
    with pytest.raises(InputError, match="KEY=VALUE"):
        _tuned(["halving"])
