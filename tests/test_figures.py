"""`make figures`: it trains what the READMEs name, and writes what came out."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from simsiam_zoo.recipe import Recipe
from simsiam_zoo.studies.plan import StudyPlan, plan_study
from simsiam_zoo.studies.study import read_study

PLUGINS = Path(__file__).parents[1] / "plugins"
STUDIES = sorted(PLUGINS.glob("*/figures.toml"))


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", PLUGINS / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def planned(study: Path, monkeypatch: pytest.MonkeyPatch) -> StudyPlan:
    monkeypatch.setenv("SIMSIAM_ZOO_PLUGINS", f"{study.parent.name},simsiam-zoo-byol")
    name, read = read_study(str(study), None)
    return plan_study(name, read, "")


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.parent.name)
def test_a_study_trains_some_seeds_and_its_readme_has_a_place_for_it(
    study: Path, figures: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(study, monkeypatch)
    assert plan.seeds in ((0, 1), (0, 1, 2))
    assert all(arm.expect == ["learned"] and not arm.not_run for arm in plan.arms)
    readme = (study.parent / "README.md").read_text()
    assert re.search(f"\n{figures.BEGIN}\n\n.*\n\n{figures.END}\n", readme, re.DOTALL)


def test_the_arms_are_the_presets_that_the_readme_names(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(PLUGINS / "simsiam-zoo-redundancy" / "figures.toml", monkeypatch)
    for arm, preset in zip(plan.arms, ("barlow-twins-mnist-5k", "vicreg-mnist-5k"), strict=True):
        named = Recipe.make(preset).identity_dict()
        assert {**arm.recipes[0].identity_dict(), "preset": ""} == {**named, "preset": ""}


def results() -> dict[str, Any]:
    """Of a study of one arm and two seeds."""
    runs = [
        {"baselines": {"untrained": {"knn (k=20, t=0.1)": top1}, "raw pixels": {}}}
        for top1 in (0.7, 0.8)
    ]
    summary = {
        "done": 2,
        "metrics": {"knn (k=20, t=0.1)": {"mean": 0.954, "std": 0.0123, "n": 2}},
        "effective_rank": {"mean": 47.4, "std": 1.0, "n": 2},
        "verdicts": {"learned": 1, "collapsed": 1},
    }
    software, machine = {"torch": "9.9"}, {"precision": "fp32", "device_name": "a CPU"}
    return {
        "seeds": [0, 1],
        "tune": None,
        "arms": [{"label": "BYOL", "summary": summary, "runs": runs}],
        "provenance": {"software": software, "machine": machine},
    }


def test_what_is_written_is_what_was_measured(figures: ModuleType, tmp_path: Path) -> None:
    text = figures.render(results())
    assert "| BYOL | 2 | 95.4 ± 1.2 |  | 47 | 1 learned, 1 collapsed |" in text
    assert "| untrained network | | 75.0 |  | | |" in text
    assert "seeds 0 and 1;" in " ".join(text.split())
    assert "torch 9.9, fp32" in " ".join(text.split())
    tune = {"grid": {"gradient.tau": [0.9, 0.99], "optim.lr": [0.5, 1.0]}, "validation": 0.2}
    chosen = {"chosen": {"gradient.tau": 0.9, "optim.lr": 0.5}, "at_edge": ["gradient.tau"]}
    tuned = figures.render(results() | {"tune": tune, "arms": [results()["arms"][0] | chosen]})
    assert "1 learned, 1 collapsed | tau 0.9 (edge), lr 0.5 |" in tuned
    assert "`gradient.tau` of 0.9 or 0.99, `optim.lr` of 0.5 or 1, on 20 %" in " ".join(
        tuned.split()
    )
    readme = tmp_path / "README.md"
    readme.write_text(f"# a\n\n{figures.BEGIN}\n\nold\n\n{figures.END}\n\n## b\n")
    figures.write(readme, text)
    figures.write(readme, text)  # again changes nothing
    assert readme.read_text() == f"# a\n\n{figures.BEGIN}\n\n{text}\n\n{figures.END}\n\n## b\n"
    readme.write_text("# a\n")
    with pytest.raises(SystemExit, match="has no marks"):
        figures.write(readme, text)
