"""`ablate` and `report` up to what trains; the runs themselves are in tests/studies."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from simsiam_zoo.cli.ablate import _command_of_all, ablate
from simsiam_zoo.cli.report import report
from simsiam_zoo.cli.study_table import print_plan
from simsiam_zoo.errors import InputError
from simsiam_zoo.studies.estimate import jobs_alone, span
from simsiam_zoo.studies.plan import told_once

DOCS = Path(__file__).parents[2] / "docs" / "studies.md"

SMALL = """
base = { preset = "digits", backbone = "test_resnet", data.image_size = 12, training.epochs = 1 }
[[ablation]]
part = "training.batch_size"
action = "replace"
with = [64, 512]
[[ablation]]
part = "backbone"
action = "replace"
with = "vgg11_bn"
[[ablation]]
part = "training.epochs"
action = "replace"
with = 2
"""


def asked(*words: str) -> Result:
    return CliRunner().invoke(ablate, words, catch_exceptions=False)


def test_the_studies_are_listed(zoo) -> None:
    rows = json.loads(asked("--list", "--json").output)
    assert {"five-parts", "predictor", "width"} <= {row["name"] for row in rows}
    assert all(row["summary"] for row in rows)


def test_the_plan_is_printed_with_an_estimate_and_nothing_is_written(tmp_path, capsys) -> None:
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    out = tmp_path / "study"
    words = [str(file), "--dry-run", "--json", "--seeds", "0,1", "--jobs", "1", "--out", str(out)]
    plan = json.loads(asked(*words).stdout)
    base, same, large, vgg, longer = plan["arms"]
    assert same["same_as"] == "base"
    assert large["warnings"] == ["batch 512 on 1,347 images: 2 steps an epoch, 2 in all"]
    assert base["steps"] == [21, 21]
    assert base["seconds"] > 0
    assert "12, 12" in vgg["not_run"]  # found by building it
    (other,) = longer["warnings"]
    assert other == "training.epochs is not the base's: the difference is of the budget too"
    assert (plan["runs"], plan["runs_left"]) == (6, 6)
    assert not out.exists()
    print_plan(plan)
    assert f"6 runs in {out}; seeds 0, 1; 1 at once" in capsys.readouterr().out
    print_plan({**plan, "gpus": 0.25})
    assert "no GPU here" in capsys.readouterr().out
    print_plan({**plan, "gpus_here": 1, "jobs": 4})
    assert "4 runs at once share one GPU: --gpus 1" in capsys.readouterr().out


def test_the_estimate_knows_that_runs_share_a_gpu() -> None:
    assert jobs_alone(0, 0) is jobs_alone(0.25, 0) is jobs_alone(1, 4) is None
    assert (jobs_alone(0.25, 2), jobs_alone(0, 2)) == (2, 1)


def test_a_warning_of_many_arms_is_told_once() -> None:
    arms = [("a", ["few", "few"]), ("b", ["few", "other"]), ("c", ["few"])]
    assert [*told_once(arms)] == ["every arm: few", "b: other"]
    assert [*told_once(arms[1:2])] == ["b: few", "b: other"]


def test_the_estimate_knows_what_runs_beside_what() -> None:
    assert span([1.0, 1.0, 1.0, 5.0], 2) == 6.0  # the long one last: it ends alone
    assert span([5.0, 1.0, 1.0, 1.0], 2) == 5.0
    assert span([2.0, 3.0], 1) == 5.0
    assert span([], 2) == 0.0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "no study is named"),
        (("five-partz",), "Did you mean five-parts"),
        (("nowhere.toml",), "cannot be read"),
        (("five-parts", "--preset", "imagnet"), "Did you mean imagenet"),
        (("five-parts", "--seeds", "0;1"), "seeds.0"),
        (("five-parts", "--set", "training.epoch=1"), "Did you mean epochs"),
        (("five-parts", "--metric", "knm"), "Did you mean knn"),
        (("predictor", "--launcher", "lokal"), "Did you mean local"),
        (("predictor", "--preset", "digits", "--set", "preset=digits"), "preset is set twice"),
        (("predictor", "--set", "preset=imagnet"), "Did you mean imagenet"),
        (("predictor", "--set", "training.seed=3"), "the same in all arms\n  Say seeds (--seeds)"),
        (("predictor", "--tune", "predictor=mlp,none"), "the study: predictor is tuned"),
        (("predictor", "--gpus", "1.5"), "cannot have 1.5 GPUs\n  Whole ones, or a part of one"),
        (("predictor", "--only", "no predicter"), "Did you mean no predictor"),
        (("predictor", "--again", "bas", "--dry-run"), "Did you mean base"),
    ],
)
def test_what_is_wrong_is_told_before_anything_runs(words, says, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as told:
        asked(*words)
    assert says in str(told.value)
    assert not (tmp_path / "runs").exists()


def test_a_studys_command_is_without_what_ran_this_time_alone(monkeypatch) -> None:
    words = ["ablate", "it.toml", "--only", "no predictor", "--seeds", "0,1", "--again=base"]
    monkeypatch.setattr("sys.argv", ["/bin/simsiam-zoo", *words, "--out", "my study"])
    assert _command_of_all() == "simsiam-zoo ablate it.toml --seeds 0,1 --out 'my study'"


def test_a_report_of_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no study"):
        CliRunner().invoke(report, [str(tmp_path)], catch_exceptions=False)


def test_the_study_that_the_docs_show_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml file=mine.toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (tmp_path / "mine.toml").write_text(text)
    from simsiam_zoo.studies.arms import make_arms
    from simsiam_zoo.studies.study import read_study

    name, study = read_study(str(tmp_path / "mine.toml"))
    arms = make_arms(study)
    assert name == "mine"
    assert len(arms) == 1 + 1 + 2 + 1 + 4


def test_the_plan_says_which_data_is_missing(zoo_here, tmp_path: Path) -> None:
    ran = zoo_here("ablate", "predictor", "--preset", "cifar10", "--dry-run")
    assert "how long: unknown; no data at data/cifar10" in " ".join(ran.stdout.split())
    assert ran.returncode == 0


def test_any_study_is_tuned_by_a_flag(zoo_here, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(SMALL)
    ran = zoo_here("ablate", "s.toml", "--tune", "optim.lr=0.25,1", "--dry-run", "--json")
    plan = json.loads(ran.stdout)
    assert plan["tune"]["grid"] == {"optim.lr": [0.25, 1]}
    own = [arm for arm in plan["arms"] if not arm["same_as"] and not arm["not_run"]]
    assert plan["runs_to_choose"] == 2 * len(own)
    text = zoo_here("ablate", "s.toml", "--tune", "optim.lr=0.25,1", "--dry-run").stdout
    told = f"{plan['runs_to_choose']} of them choose optim.lr for each arm"
    assert told in " ".join(text.split())
    for words, said in (("optim.lr", "KEY=VALUE"), ("optim.lrr=1,2", "Did you mean lr?")):
        refused = zoo_here("ablate", "s.toml", "--tune", words, "--dry-run")
        assert refused.returncode == 2
        assert said in refused.stderr
