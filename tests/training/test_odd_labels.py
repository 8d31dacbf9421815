"""Data whose labels leave little or nothing to measure: a run on it ends with a result."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import digits

from simsiam_zoo.data.packing.writer import pack_dataset
from simsiam_zoo.evaluation.evaluate import evaluate
from simsiam_zoo.evaluation.target import open_target

Run = Callable[..., tuple[Path, dict[str, Any]]]


def shards(folder: Path, train: Sequence[int], test: Sequence[int]) -> dict[str, object]:
    """The first digits, with these labels."""
    samples = digits(len(train) + len(test))
    labels = [*train, *test]
    given = [replace(s, label=x) for s, x in zip(samples, labels, strict=True)]
    folder.mkdir()
    pack_dataset(folder, {"train": given[: len(train)], "val": given[len(train) :]}, None)
    return {"dataset": str(folder)}


@pytest.mark.parametrize(
    ("train", "test", "reason"),
    [
        ([0] * 40, [0] * 10, "the training images are all of one class"),
        ([0, 1] * 20, [1], "there is one test image only"),
        ([0, 1] * 20, [0, -1, 1], "1 of the 3 test images have no label"),
    ],
)
def test_where_nothing_can_be_told_the_verdict_says_why(
    run: Run, tmp_path: Path, train: list[int], test: list[int], reason: str
) -> None:
    settings = {"evaluation.online_epochs": 1, "evaluation.protocols": ["knn:k=5"]}
    folder, result = run({**shards(tmp_path / "data", train, test), **settings})
    assert result["verdict"] == "undetermined"
    assert result["reason"].startswith(f"{reason}, so nothing to compare")
    text = (folder / "result.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == result  # no NaN, which is no JSON


def test_a_sample_of_one_class_does_not_end_the_training(run: Run, tmp_path: Path) -> None:
    """The images that are measured on the way, evenly spaced, miss the rare class."""
    rare = [0] * 60
    rare[31] = rare[45] = 1
    settings = {"evaluation.online_images": 4, "evaluation.online_epochs": 1}
    settings |= {"evaluation.protocols": ["knn:k=1"]}
    data = shards(tmp_path / "data", rare, [0] * 9 + [1])
    folder, result = run({**data, **settings})
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    seen = [row for row in rows if "effective_rank" in row]
    assert seen
    assert not any(key.startswith("top1") for row in seen for key in row)
    assert [figure["test_images"] for figure in result["figures"]] == [10]


def test_labels_of_a_catalogue_take_no_table_of_their_size(run: Run, tmp_path: Path) -> None:
    """Ten classes, 0 to 90,000: a confusion matrix of all numbers would have 65 GB."""
    labels = [10_000 * (i % 10) for i in range(80)]
    protocols = ["knn:k=5", "linear:epochs=2", "logistic"]
    data = shards(tmp_path / "data", labels, labels[:30])
    folder, result = run({**data, "evaluation.protocols": protocols})
    assert len(result["figures"]) == 3
    report = evaluate(open_target(str(folder)))
    assert report["data"]["classes"] == 10
    assert report["data"]["class_names"] == [str(10_000 * i) for i in range(10)]
    for figure, stated in zip(report["figures"], result["figures"], strict=True):
        assert figure["top1"] == stated["top1"]
        assert (len(figure["confusion"]), len(figure["per_class"])) == (10, 10)
