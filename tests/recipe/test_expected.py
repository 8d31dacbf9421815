from __future__ import annotations

import json
from pathlib import Path

import pytest

from simsiam_zoo.catalog import catalog
from simsiam_zoo.errors import PluginError
from simsiam_zoo.recipe import Recipe, expected
from simsiam_zoo.recipe.expected import described, expected_of, published_for


def test_what_the_paper_reached_is_stated_with_its_cost() -> None:
    found = described("cifar10")
    assert found is not None
    assert (found["figure"], found["cost"], found["measured"]) == (
        91.8,
        "800 x 50,000 images",
        False,
    )
    assert expected_of("mnist-5k") is None
    assert expected_of("digits") is None


def test_no_figure_is_inherited_and_none_is_in_a_recipe() -> None:
    named = {entry.name for entry in catalog().entries("preset") if expected_of(entry.name)}
    assert named == {"cifar10", "imagenet"}
    assert "expected" not in Recipe.make("cifar10").to_dict()


def test_a_run_names_the_settings_in_which_it_differs() -> None:
    same = {"training.seed": 3, "dataset": "./elsewhere", "data.workers": 0, "data.views": "worker"}
    published = published_for(Recipe.make("cifar10", None, same))
    assert published is not None
    assert published[1] == []
    other = Recipe.make("cifar10", None, {**same, "optim.lr": 0.1, "predictor": "none"})
    published = published_for(other)
    assert published is not None
    assert {"optim.lr", "predictor.name"} <= set(published[1])
    assert published_for(Recipe.make("mnist-5k")) is None
    gone = Recipe.make("cifar10").model_copy(update={"preset": "not-here"})
    assert published_for(gone) is None


@pytest.mark.parametrize("table", [{"figure": 904}, {"figure": 90.4, "pages": 3}, 90.4])
def test_a_damaged_table_is_the_presets_mistake(
    table: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expected, "read_component_file", lambda _: {"expected": table})
    with pytest.raises(PluginError, match="preset cifar10: expected"):
        expected_of("cifar10")


def test_list_and_show_give_it(zoo_here, tmp_path: Path) -> None:
    rows = json.loads(zoo_here("list", "preset", "--json").stdout)
    stated = {row["name"]: row["expected"]["figure"] for row in rows if "expected" in row}
    assert stated == {"cifar10": 91.8, "imagenet": 68.1}
    assert "Published: 91.8 % (the paper, appendix D)" in zoo_here("list", "preset").stdout
    shown = zoo_here("show", "preset", "cifar10").stdout
    assert "published: 91.8 %" in shown
    assert "simsiam-zoo pack cifar-10-batches-bin" in shown
    assert json.loads(zoo_here("show", "preset", "digits", "--json").stdout)["expected"] is None
