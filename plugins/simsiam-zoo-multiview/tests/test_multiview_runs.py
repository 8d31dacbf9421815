"""The parts in real runs of a few steps, and what the package says that it supplies."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import simsiam_zoo as zoo
from simsiam_zoo.catalog import catalog
from simsiam_zoo.errors import InputError
from simsiam_zoo.studies.estimate import seconds_per_step
from simsiam_zoo.training.batches import to_device, train_loader
from simsiam_zoo.training.setup import prepare
from simsiam_zoo.training.without_labels import drawn_views

Killed = Callable[[int, zoo.Recipe, Path], None]
Tiny = Callable[..., zoo.Recipe]
CROPS = "multi-crop:base=digits,large=2,small=3,small_size=8,min_scale=0.2,split_scale=0.5"
SIZES = (16, 16, 8, 8, 8)
DISAGREE = "multi-crop gives 5 views of each image, and gradient stop-gradient compares 2"


@pytest.mark.parametrize("way", ["worker", "split", "device"])
def test_a_run_of_two_sizes_goes_on_to_the_bit_after_a_kill(
    tiny: Tiny, killed_at: Killed, tmp_path: Path, way: str
) -> None:
    settings = {"augmentation": CROPS, "data.views": way}
    recipe = tiny(gradient="multi-crop:predictors=by-size", **settings)
    whole = zoo.train(recipe, tmp_path / "whole", quiet=True)
    killed_at(3, recipe, tmp_path / "cut")
    cut = zoo.train(recipe, tmp_path / "cut", resume=True, quiet=True)
    torch.testing.assert_close(*(r.model.state_dict() for r in (whole, cut)), rtol=0, atol=0)
    losses = [row["loss"] for row in whole.metrics if "loss" in row]
    assert len(losses) == 4
    assert all(-1 <= loss <= 1 for loss in losses)
    told = {key for key in whole.metrics[0] if key.startswith(("uniformity", "alignment"))}
    assert told == {"alignment_1_2", "uniformity_1", "uniformity_2"}  # of the large views


def test_all_ways_and_workers_give_the_same_views_but_for_rounding(tiny: Tiny) -> None:
    def views(**settings: object) -> list[torch.Tensor]:
        setup = prepare(tiny(augmentation=CROPS, gradient="multi-crop", **settings))
        batches = train_loader(setup).batches()
        return [view for _ in range(2) for view in to_device(setup, next(batches)).views]

    alone = views()
    assert [view.shape[-1] for view in alone] == [*SIZES, *SIZES]
    assert all(map(torch.equal, alone, views(**{"data.workers": 1})))
    for way in ("split", "device"):
        for ours, theirs in zip(views(**{"data.views": way}), alone, strict=True):
            apart = (ours - theirs).abs() * 255 * min(tiny().data.std)
            assert apart.mean() <= 0.1
            assert (apart > 2.01).float().mean() < 2e-3


def test_fastsiam_trains_on_any_augmentation(tiny: Tiny, tmp_path: Path) -> None:
    run = zoo.train(tiny(gradient="fastsiam:views=3"), tmp_path / "run", quiet=True)
    losses = [row["loss"] for row in run.metrics if "loss" in row]
    assert len(losses) == 4
    assert all(-1 <= loss <= 1 for loss in losses)


def test_micro_batches_and_estimates_take_all_sizes(tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(augmentation=CROPS, gradient="multi-crop", **{"training.accumulate": 2})
    assert seconds_per_step(recipe) > 0
    zoo.train(recipe, tmp_path / "run", quiet=True)


def test_without_labels_the_large_views_are_compared(tiny: Tiny) -> None:
    setup = prepare(tiny(augmentation=CROPS, gradient="multi-crop"))
    assert drawn_views(setup).shape[0] == 8
    assert drawn_views(setup).shape[2:] == (3, 16, 16)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"augmentation": CROPS},
            DISAGREE,
        ),
        ({"gradient": "multi-crop"}, "states no number"),
        (
            {
                "augmentation": CROPS,
                "gradient": "multi-crop",
                "training.epochs": 2,
                "change": [{"epoch": 1, "gradient": "stop-gradient"}],
            },
            DISAGREE,
        ),
    ],
)
def test_what_does_not_go_together_ends_before_the_first_step(
    tiny: Tiny, settings: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        prepare(tiny(**settings))


def test_the_list_of_names_leaves_torch_out() -> None:
    code = (
        "import sys, simsiam_zoo_multiview.plugin as p; list(p.zoo_components());"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_package_supplies_what_its_readme_lists() -> None:
    entries = catalog().entries()
    mine = [entry for entry in entries if entry.distribution == "simsiam-zoo-multiview"]
    assert {(entry.kind, entry.name) for entry in mine} == {
        ("augmentation", "multi-crop"),
        ("gradient", "multi-crop"),
        ("gradient", "fastsiam"),
        ("preset", "multi-crop-mnist-5k"),
        ("preset", "multi-crop"),
    }
