"""A run whose images have no labels is judged by their views."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import digits

from simsiam_zoo.cli.text import print_result
from simsiam_zoo.data.batches import TrainBatches
from simsiam_zoo.data.order import SampleOrder, evenly
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.report.run_page import render_run
from simsiam_zoo.training.run import load
from simsiam_zoo.training.run_folder import read_metrics
from simsiam_zoo.training.setup import prepare
from simsiam_zoo.training.without_labels import SEED, drawn_views

TinyRun = Callable[..., tuple[Path, dict[str, Any]]]


def pack(folder: Path, samples: list[PackedSample]) -> Path:
    folder.mkdir()
    pack_dataset(folder, {"train": samples}, None, shard_size=32)
    return folder


def test_a_run_without_labels_has_the_same_weights_and_a_verdict_of_its_own(
    run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled, with_labels = run()
    assert "without_labels" not in with_labels["evidence"]
    folder, result = run({"dataset": str(pack(tmp_path / "data", digits(96, False)))}, "bare")
    first, second = (
        torch.load(each / "checkpoints" / "last.pt", weights_only=True)["siamese"]
        for each in (labelled, folder)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    # Twelve steps: whether views agree more than before is within chance.
    assert result["verdict"] in {"undetermined", "no-collapse-seen"}, result["reason"]
    assert "96 of the 96 training images have no label" in result["reason"]
    assert result["figures"] == []
    text = (folder / "result.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == result
    found = result["evidence"]["without_labels"]
    assert (found["images"], found["views"], found["lidar_limit"]) == (96, 8, 32)
    assert found["shared_gain"][1] == pytest.approx(
        found["trained"]["shared_neighbours"] - found["untrained"]["shared_neighbours"]
    )
    measured = [r for r in read_metrics(folder) if "effective_rank" in r]
    assert found["rank_course"] == [[r["step"], r["effective_rank"]] for r in measured]
    assert found["rank_course"][-1][1] == result["evidence"]["effective_rank"]
    print_result(result, folder)
    lidar, before = (found[network]["lidar"] for network in ("trained", "untrained"))
    line = rf"LiDAR of z, at most 32 +{lidar:.1f} +{before:.1f}$"
    assert re.search(line, capsys.readouterr().out, re.MULTILINE)
    page = render_run(load(folder), None)
    assert f"<dd>{lidar:.1f}<small>untrained: {before:.1f}</small></dd>" in page


def test_the_views_are_those_of_training_drawn_by_a_seed_of_no_run(
    tiny: Callable[..., Recipe], tmp_path: Path
) -> None:
    good = digits(300, False)
    good[18] = PackedSample("0018", b"no image", "png")
    shards = pack(tmp_path / "many", good)
    first, second = (
        prepare(tiny({"dataset": str(shards), "training.seed": seed})) for seed in (0, 5)
    )
    views = drawn_views(first)
    assert torch.equal(views, drawn_views(second))
    ids = evenly(300, 256)
    assert 18 in ids
    ids = ids[ids != 18]
    assert views.shape == (8, 255, 3, 16, 16)
    # The third epoch of a run with that seed: views 5 and 6.
    of_training = TrainBatches(
        first.dataset.train,
        SampleOrder(first.dataset.train.counts, 0, 16, 1, 1),
        first.recipe.part("augmentation").create(),
        16,
        2,
        SEED,
    )
    made = of_training.make(
        (2, 0, np.asarray(ids)), lambda size: torch.empty(size, dtype=torch.uint8)
    )
    assert torch.equal(made.pixels[0], views[4:6])
