"""Runs side by side: paired by image, or not at all where the images are others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_runs import KNN, make_run
from scipy.stats import binomtest
from tiny_runs import tiny_recipe

from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.evaluate import evaluate, new_report_path, write_report
from simsiam_zoo.evaluation.target import open_target
from simsiam_zoo.evaluation.verdict import paired_gain
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.studies.compared_runs import compare
from simsiam_zoo.studies.found_runs import named_run, read_json
from simsiam_zoo.studies.statistics import paired_by_image
from simsiam_zoo.training.train import train


def test_paired_by_image_is_the_verdicts_interval_and_mcnemars_exact_test() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.random(300) < 0.8, rng.random(300) < 0.7
    found = paired_by_image(one, two)
    low, mean, high = paired_gain(torch.from_numpy(one), torch.from_numpy(two))
    assert (found["low"], found["mean"], found["high"]) == pytest.approx((low, mean, high))
    gained, lost = int(np.sum(one & ~two)), int(np.sum(two & ~one))
    assert (found["gained"], found["lost"], found["n"]) == (gained, lost, 300)
    assert found["p"] == binomtest(gained, gained + lost).pvalue
    same = paired_by_image(one, one)
    assert (same["low"], same["high"], same["p"]) == (0.0, 0.0, 1.0)


def test_runs_of_the_same_images_are_paired_and_what_differs_is_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    right = [(rng.random(90) < share).tolist() for share in (0.6, 0.8, 0.9)]
    folders = [
        make_run(tmp_path / "a", right=right[0]),
        make_run(tmp_path / "b", {"optim.lr": 2.0}, right=right[1]),
        make_run(tmp_path / "c", {"training.seed": 1}, right=right[2]),
    ]
    found = compare([named_run(str(folder)) for folder in folders])
    assert found["keys"] == {"training.seed": [0, 0, 1], "optim.lr": [1.0, 2.0, 1.0]}
    (metric,) = found["metrics"]
    assert metric["top1"] == pytest.approx([np.mean(each) for each in right], abs=1e-6)
    none, *gaps = metric["differences"]
    assert none is None
    ps = []
    for gap, each in zip(gaps, right[1:], strict=True):
        expected = paired_by_image(np.array(each), np.array(right[0]))
        assert {key: gap[key] for key in expected} == expected
        ps.append(expected["p"])
    low, high = sorted(ps)
    corrected = sorted(gap["holm_p"] for gap in gaps)
    assert corrected == pytest.approx([min(1, 2 * low), max(min(1, 2 * low), high)])


def test_a_record_that_is_not_of_the_figure_is_not_used(tmp_path: Path) -> None:
    right = [True] * 60 + [False] * 40
    one, two = make_run(tmp_path / "a", right=right), make_run(tmp_path / "b", right=right)
    text = (two / "correct.json").read_text()
    (two / "correct.json").write_text(text.replace('"top1": 0.6', '"top1": 0.9'))
    (metric,) = compare([named_run(str(one)), named_run(str(two))])["metrics"]
    assert metric["differences"][1]["n"] is None


def test_other_images_and_other_versions_are_not_compared(tmp_path: Path) -> None:
    right = [True, False] * 40
    one = named_run(str(make_run(tmp_path / "a", right=right)))
    held = {"data.validation": 0.5}
    for name, settings, more, why in [
        ("b", {"dataset.name": "mnist"}, {"digest": "d2"}, "is digits, of the other mnist"),
        ("c", {}, {"digest": "d2"}, "other images of digits"),
        ("d", held, {"digest": "d3", "measured_on": "validation"}, "on validation images"),
    ]:
        other = named_run(str(make_run(tmp_path / name, settings, right=right, **more)))
        with pytest.raises(InputError, match=why) as error:
            compare([one, other])
        assert "evaluate RUN --data" in str(error.value)
    newer = named_run(str(make_run(tmp_path / "e", right=right, version=4)))
    found = compare([one, newer])
    assert found["metrics"] == []
    assert found["notes"] == [f"{KNN} is not compared: its versions are 3 and 4"]
    waiting = named_run(str(make_run(tmp_path / "f", verdict=None)))
    assert compare([one, waiting])["notes"] == [f"not complete: {waiting.folder}"]


def test_trained_runs_keep_which_images_they_got_right(digit_shards: Path, tmp_path: Path) -> None:
    """Against the evaluator's own report, taken anew from the weights."""
    runs = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(runs):
        settings = {"training.seed": seed, "evaluation.protocols": ("knn",)}
        train(tiny_recipe(digit_shards, settings), folder, progress=Progress())
    found = compare([named_run(str(folder)) for folder in runs])
    gaps = {m["protocol"]: m["differences"][1] for m in found["metrics"]}
    assert gaps[KNN]["n"] == 64
    assert found["keys"] == {"training.seed": [0, 1]}
    # Without the record, as of runs that were trained before there was one: evaluate makes it.
    for folder in runs:
        (folder / "correct.json").unlink()
    (first, *_) = compare([named_run(str(folder)) for folder in runs])["metrics"]
    assert first["differences"][1]["n"] is None
    for folder in runs:
        write_report(evaluate(open_target(str(folder))), new_report_path(folder))
    again = compare([named_run(str(folder)) for folder in runs])
    assert {m["protocol"]: m["differences"][1] for m in again["metrics"]} == gaps
    report = read_json(runs[0] / "evaluations" / "1.json")
    report["figures"][0]["protocol"] = "of other data"
    report["data"]["test"] = "0" * 64
    write_report(report, new_report_path(runs[0]))
    assert "of other data" not in named_run(str(runs[0])).recorded()
