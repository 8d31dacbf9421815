"""Advice on recorded runs of digits: small networks, one thread, seed 0, rows thinned.

`python tests/training/test_advice.py NAME ...` trains and records them anew.
"""

from __future__ import annotations

import html
import json
import re
import shlex
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from simsiam_zoo.cli.text import print_advice, print_result
from simsiam_zoo.errors import DivergedError
from simsiam_zoo.evaluation.verdict import Evidence
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.report.run_page import render_run
from simsiam_zoo.training.advice import advice_for, command
from simsiam_zoo.training.run import Run, load, train
from simsiam_zoo.training.setup import prepare
from simsiam_zoo.training.wiring import Wiring, wiring_of

RECORDED = Path(__file__).parents[1] / "fixtures" / "advice"

COMMON: dict[str, Any] = {
    "backbone": "resnet_small",
    "backbone.widths": [16, 32, 64],
    "data.image_size": 16,
    "data.workers": 0,
    "training.epochs": 8,
    "training.threads": 1,
    "training.precision": "fp32",
    "evaluation.protocols": ["knn:k=20"],
}
WEAK = {"min_scale": 0.95, "rotation": 1.0, "shear": 0.01, "brightness": 0.02, "contrast": 0.02}
STRONG = {"min_scale": 0.05, "rotation": 90.0, "shear": 1.0}

RUNS: dict[str, tuple[dict[str, Any], str, dict[str, str | None]]] = {
    "healthy": (
        {"backbone": "resnet10t", "data.image_size": 24},
        "learned",
        {},
    ),
    "no-sign": ({"training.epochs": 20}, "no-gain", {}),
    "no-stop-gradient": (
        {"gradient": "none"},
        "collapsed",
        {"stop-gradient": "--gradient stop-gradient"},
    ),
    "no-predictor": (
        {"predictor": "none"},
        "no-gain",
        {"no predictor": "--predictor mlp:hidden_dim=128"},
    ),
    "fixed-predictor": (
        {"predictor": "fixed-random"},
        "no-gain",
        {"fixed predictor": "--predictor mlp:hidden_dim=128"},
    ),
    "lr-30": ({"optim.lr": 30.0}, "collapsed", {"rank fell": "--lr 7.5"}),
    "lr-8": ({"optim.lr": 8.0}, "collapsed", {"rank fell": "--lr 2"}),
    "batch-4": (
        {"training.batch_size": 4, "training.epochs": 3},
        "worse",
        {"BN batch": "--batch-size 64", "steps": "--epochs 9"},
    ),
    "no-projector-bn": (
        {"projector.norm": "none"},
        "worse",
        {"projector BN": "--set projector.norm=all"},
    ),
    "weak-views": (
        {f"augmentation.{key}": value for key, value in WEAK.items()},
        "no-gain",
        {"weak views": "--set augmentation.min_scale=0.47"},
    ),
    "strong-views": (
        {f"augmentation.{key}": value for key, value in STRONG.items()},
        "worse",
        {"strong views": "--set augmentation.min_scale=0.53"},
    ),
    "short": ({}, "no-gain", {"steps": "--epochs 24"}),
    "slow": ({"optim.lr": 0.02}, "no-gain", {"slow": "--lr 0.2"}),
    "one-epoch": ({"training.epochs": 1}, "worse", {"steps": "--epochs 3"}),
    "decayed-predictor": (
        {"optim.parts.predictor.schedule": "cosine"},
        "no-gain",
        {"steps": "--epochs 24", "predictor lr": "--set optim.parts.predictor.schedule=constant"},
    ),
}
"""Name → what is set beside `COMMON`, the verdict, and the rules that hold with their flags."""

KEPT = ("step", "epoch", "loss", "std_sqrt_d", "alignment_1_2", "effective_rank", "lr_predictor")


def recipe_of(name: str) -> Recipe:
    return Recipe.make("digits", None, [COMMON, RUNS[name][0]])


def record(name: str, folder: Path) -> None:
    """Keep what the rules see of the run in `folder`."""
    run, setup = load(folder), prepare(recipe_of(name))
    rows = [{k: _short(row[k]) for k in KEPT if k in row} for row in run.metrics]
    plain = [row for row in rows if "loss" in row]
    every = -(-len(plain) // 20)
    kept = [row for row in rows if "loss" not in row or row in (*plain[::every], plain[-1])]
    found = {
        "result": {k: run.result[k] for k in ("verdict", "figures", "steps", "evidence")},
        "wiring": asdict(wiring_of(setup, setup.siamese)),
        "rows": kept,
    }
    for figure in found["result"]["figures"]:
        for key in figure.keys() - {"network", "protocol", "top1"}:
            del figure[key]
    RECORDED.mkdir(exist_ok=True)
    (RECORDED / f"{name}.json").write_text(json.dumps(found) + "\n")


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.5g}")


def recorded(name: str) -> tuple[dict[str, Any], Evidence, list[dict[str, Any]], Wiring]:
    """The result, the evidence, the rows and the wiring of a recorded run."""
    found = json.loads((RECORDED / f"{name}.json").read_text())
    seen = found["result"]["evidence"]
    gain = seen["knn_gain_interval"]
    evidence = Evidence(
        finite=True,
        first_loss=seen["first_loss"],
        last_loss=seen["last_loss"],
        loss_minimum=seen["loss_minimum"],
        spread=seen["std_sqrt_d"],
        rank=seen["effective_rank"],
        rank_limit=seen["effective_rank_limit"],
        untrained_rank=seen["untrained_effective_rank"],
        gain=gain and tuple(gain),
    )
    return found["result"], evidence, found["rows"], Wiring(**found["wiring"])


@pytest.mark.parametrize("name", RUNS)
def test_the_advice_on_a_recorded_run(name: str) -> None:
    result, *seen = recorded(name)
    _, verdict, expected = RUNS[name]
    assert result["verdict"] == verdict
    found = advice_for(recipe_of(name), result, *seen)
    assert {each["rule"]: each["flags"] for each in found} == expected


def test_views_are_not_called_too_strong_while_the_loss_falls() -> None:
    result, evidence, rows, wiring = recorded("strong-views")
    for row in rows:
        if row["step"] > 0.75 * result["steps"] and "loss" in row:
            row["loss"] -= 0.03  # a tenth of the way that it went, and no twentieth of all of it
    found = advice_for(recipe_of("strong-views"), result, evidence, rows, wiring)
    assert [each["rule"] for each in found] == ["steps"]


def test_no_batch_is_advised_that_the_data_does_not_fill() -> None:
    result, evidence, rows, wiring = recorded("batch-4")
    few = [{**row, "step": 9 * (row["epoch"] + 1)} for row in rows]  # 36 images
    first, *_ = advice_for(recipe_of("batch-4"), result, evidence, few, wiring)
    assert (first["rule"], first["flags"]) == ("BN batch", None)
    assert "too few for more" in str(first["reason"])


def test_few_steps_say_nothing_of_the_lr() -> None:
    result, evidence, rows, wiring = recorded("slow")
    few = [{**row, "step": -(-40 * row["step"] // result["steps"])} for row in rows]
    found = advice_for(recipe_of("slow"), {**result, "steps": 40}, evidence, few, wiring)
    assert [(each["rule"], each["flags"]) for each in found] == [("steps", "--epochs 80")]


def test_a_rank_that_was_low_before_did_not_fall() -> None:
    result, evidence, rows, wiring = recorded("lr-30")
    alike = replace(evidence, untrained_rank=1.0)  # images that hardly differ
    assert advice_for(recipe_of("lr-30"), result, alike, rows, wiring) == []


def test_a_run_that_was_changed_on_the_way_gets_none() -> None:
    result, *seen = recorded("lr-30")
    change = [{"epoch": 2, "gradient": {"name": "none"}}]
    recipe = Recipe.make("digits", None, [COMMON, {"change": change}])
    assert recipe.change
    assert advice_for(recipe, result, *seen) == []


@pytest.mark.parametrize("verdict", ["collapsed", "no-gain", "worse"])
def test_no_rule_sees_its_sign_in_a_run_that_learned(verdict: str) -> None:
    """Whatever the verdict had been: of the short one that it is short, of the long one nothing."""
    result, *seen = recorded("healthy")
    found = advice_for(recipe_of("healthy"), {**result, "verdict": verdict}, *seen)
    assert {each["rule"] for each in found} <= {"steps"}
    long = json.loads((RECORDED.parent / "curves" / "healthy.json").read_text())  # 24 epochs
    rows = long["rows"]
    evidence = replace(
        seen[0],
        first_loss=rows[0]["loss"],
        last_loss=[row["loss"] for row in rows if "loss" in row][-1],
        rank=long["rank"],
        untrained_rank=long["untrained_rank"],
    )
    result |= {"verdict": verdict, "steps": long["steps"]}
    assert advice_for(recipe_of("healthy"), result, evidence, rows, Wiring()) == []


def test_the_commands_are_recipes_that_can_be_trained(zoo_here: Any, tmp_path: Path) -> None:
    """The flags go on the recipe that the run left behind, and are taken."""
    for name in ("no-stop-gradient", "no-predictor", "no-projector-bn", "weak-views", "lr-8"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "recipe.toml").write_text(recipe_of(name).to_toml())
        _, _, expected = RUNS[name]
        for flags in filter(None, expected.values()):
            words = shlex.split(command(folder, flags))
            assert words[:3] == ["simsiam-zoo", "train", "--recipe"]
            done = zoo_here(*words[1:], "--dry-run", "--json")
            assert done.returncode == 0, done.stderr
            changed = Recipe.make(None, None, _plain(json.loads(done.stdout)["recipe"]))
            assert changed != recipe_of(name)


def test_the_wiring_is_found_by_what_the_parts_do(tiny: Any, monkeypatch: Any) -> None:
    def wired(**changes: object) -> Wiring:
        setup = prepare(tiny(changes))
        return wiring_of(setup, setup.siamese)

    plain = Wiring(bn_batch=16)
    assert wired() == plain
    for policy in ("alternation:k=2", "moving-average"):
        assert wired(gradient=policy) == plain
    assert wired(gradient="none") == replace(plain, target_gradient=True)
    assert wired(predictor="none") == replace(plain, predicts=False, predictor_trained=False)
    assert wired(predictor="fixed-random") == replace(plain, predictor_trained=False)
    assert wired(projector="none").projector_bn is None
    assert wired(**{"projector.norm": "none"}) == replace(plain, projector_bn=False)
    assert wired(**{"training.accumulate": 4}).bn_batch == 4
    setup = prepare(tiny({"gradient": "none", "predictor": "none"}))
    monkeypatch.setattr(setup.siamese.loss, "whole_batch", True)
    contrasting = wiring_of(setup, setup.siamese)  # as SimCLR: that is how it is meant
    result, evidence, rows, _ = recorded("no-stop-gradient")
    found = advice_for(setup.recipe, result, evidence, rows, contrasting)
    assert not {each["rule"] for each in found} & {"stop-gradient", "no predictor"}


def test_a_diverged_run_says_what_to_try(tiny: Any, tmp_path: Path) -> None:
    recipe, folder = tiny({"optim.lr": 1e30, "loss": "mse:normalize=false"}), tmp_path / "run"
    with pytest.raises(DivergedError) as ended:
        train(recipe, folder, quiet=True)
    (advice, *_) = load(folder).result["advice"]
    assert (advice["rule"], advice["flags"]) == ("not finite", "--lr 2.5e+29")
    assert "an lr of 6.25e+28 (base 1e+30 x 16 / 256)" in str(ended.value)
    assert command(folder, "--lr 2.5e+29") in str(ended.value)


def test_the_terminal_and_the_page_show_reason_and_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result, *seen = recorded("batch-4")
    recipe = recipe_of("batch-4")
    advice = advice_for(recipe, result, *seen)
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    (tmp_path / "lock.toml").write_text('identity = ""')
    (tmp_path / "metrics.jsonl").write_text("")
    shown = {**result, "reason": "none", "advice": [*advice, {**advice[0], "reason": "a third"}]}
    for figure in shown["figures"]:
        figure["test_images"] = 450
    monkeypatch.setenv("COLUMNS", "80")
    print_result(shown, tmp_path)
    text = capsys.readouterr().out
    lines = text[text.index("What its") : text.index("more in result.json")].splitlines()
    assert all(len(line) <= 80 or "simsiam-zoo train" in line for line in lines)
    for each in advice:
        assert each["reason"] in " ".join(text.split())
        assert f"    {command(tmp_path, str(each['flags']))}\n" in text
    assert "a third" not in text
    assert "1 more in result.json" in text
    after = text[text.index("\nNext\n") :].splitlines()
    assert f"  simsiam-zoo evaluate {tmp_path}" in after
    assert "    other protocols, other data" in after  # below the command: the path is long
    other = tmp_path / "two  spaces"
    other.mkdir()
    save_file({"x": np.zeros(1)}, other / "backbone.safetensors")  # timm does not make it
    print_result(shown, other)
    own = capsys.readouterr().out
    assert "timm" in text
    assert "timm" not in own
    assert f"simsiam-zoo look '{other}'\n" in own
    print_advice([{"reason": "too high", "flags": "--lr 0.1"}], tmp_path)
    assert f"simsiam-zoo tune {tmp_path} tries" in capsys.readouterr().out
    print_advice([{"reason": "too high", "flags": "--lr 0.1"}], tmp_path, labels=False)
    assert "tune" not in capsys.readouterr().out
    (tmp_path / "result.json").write_text(json.dumps({**shown, "identity": ""}))
    page = render_run(Run(tmp_path, recipe), None)
    assert html.escape(command(tmp_path, str(advice[0]["flags"]))) in page


def _plain(tree: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested tables as dotted paths."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, dict) and value
        found |= _plain(value, f"{before}{key}.") if nested else {before + key: value}
    return found


def test_every_rule_was_seen_on_a_real_run() -> None:
    seen = {rule for _, _, expected in RUNS.values() for rule in expected}
    page = (Path(__file__).parents[2] / "docs" / "verdicts.md").read_text()
    told = page[page.index("## What to try") : page.index("## The columns")]
    rules = set(re.findall(r"^\| `(.+?)` \|", told, re.MULTILINE))
    assert rules - seen == {"not finite"}  # that one is trained above


if __name__ == "__main__":
    for chosen in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as made:
            train(recipe_of(chosen), Path(made) / "run")
            record(chosen, Path(made) / "run")
