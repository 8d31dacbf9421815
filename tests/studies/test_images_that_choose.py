"""Which images choose the values of a tuned study: never those of the test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import TINY, digits

from simsiam_zoo.data.packing.writer import pack_dataset
from simsiam_zoo.errors import InputError
from simsiam_zoo.report.write import publish
from simsiam_zoo.studies.job import run_job
from simsiam_zoo.studies.plan import plan_study, write_plan
from simsiam_zoo.studies.study import parse_study
from simsiam_zoo.studies.tuning import choose


def packed(folder: Path, shuffled: bool) -> Path:
    """96 digits to train on and 64 to test on, the labels of the latter as they are or shuffled."""
    folder.mkdir(parents=True)
    samples = digits(160)
    labels = [each.label for each in samples[96:]]
    if shuffled:
        labels = np.random.default_rng(0).permutation(labels).tolist()
    test = [replace(each, label=label) for each, label in zip(samples[96:], labels, strict=True)]
    names = tuple(map(str, range(10)))
    pack_dataset(folder, {"train": samples[:96], "val": test}, names, shard_size=32)
    return folder


def test_no_test_image_chooses_anything(tmp_path: Path) -> None:
    """The same candidates win, by the same figures, where the test images' labels are shuffled."""
    found = []
    for name, shuffled in (("as it is", False), ("shuffled", True)):
        base = TINY | {"preset": "digits", "dataset": str(packed(tmp_path / name, shuffled))}
        tree = {
            "base": {**base, "training.epochs": 2},
            "tune": {"grid": {"optim.lr": [0.05, 0.5]}},
            "ablation": [{"part": "predictor", "action": "remove"}],
        }
        study, folder = parse_study(tree, "it"), tmp_path / f"study {name}"
        plan = plan_study("real", study)
        write_plan(plan, folder)
        for job in plan.tuning_jobs(folder):
            assert run_job(job.folder, job.metrics) == 0
        plan = choose(plan, study, folder)
        write_plan(plan, folder)
        tried = [[each["top1"] for each in a["candidates"]] for a in publish(folder)["arms"]]
        found.append(([arm.chosen for arm in plan.arms], tried))
    assert None not in found[0][0]
    assert found[0] == found[1]


def test_a_plan_says_where_the_images_that_choose_are_those_that_are_reported_on() -> None:
    held_out = {"preset": "digits", "data.validation": 0.2}
    for base, count in ((held_out, 1), ({"preset": "digits"}, 0)):
        tree = {"base": base, "tune": {"grid": {"optim.lr": [0.1, 0.2]}}}
        arms = plan_study("it", parse_study(tree, "it")).arms
        assert {sum("data.validation" in line for line in arm.warnings) for arm in arms} == {count}


def test_images_without_labels_choose_nothing_and_a_study_of_them_expects_no_more_than_there_is(
    tmp_path: Path,
) -> None:
    (tmp_path / "bare").mkdir()
    pack_dataset(tmp_path / "bare", {"train": digits(96, labelled=False)}, None)
    base = TINY | {"preset": "digits", "dataset": str(tmp_path / "bare")}
    tree = {"base": base, "ablation": [{"part": "predictor", "action": "remove"}]}
    first, second = plan_study("it", parse_study(tree, "it")).arms
    assert (first.expect, second.expect) == (["learned", "no-collapse-seen"], [])
    assert any("96 training images have no label: no top-1" in line for line in first.warnings)
    tuned = parse_study({**tree, "tune": {"grid": {"optim.lr": [0.05, 0.5]}}}, "it")
    with pytest.raises(InputError, match="have no label, so nothing can choose among values"):
        plan_study("it", tuned)
