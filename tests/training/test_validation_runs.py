"""Runs with `data.validation`: the runs that there would be on data packed so, without it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import digits

from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.data.shards import ShardSet
from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.evaluate import evaluate
from simsiam_zoo.evaluation.target import open_target
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.report.features import open_run_data
from simsiam_zoo.runtime.checkpoint import load_last
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.meter import MACHINE
from simsiam_zoo.training.run import load
from simsiam_zoo.training.run_folder import read_metrics
from simsiam_zoo.training.train import train

Run = Callable[..., tuple[Path, dict[str, Any]]]
HELD: dict[str, object] = {"data.validation": 0.25, "data.max_damaged": 0.5}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state, _, _ = load_last(folder / "checkpoints")
    return state["siamese"]


def assert_same(a: tuple[Path, dict[str, Any]], b: tuple[Path, dict[str, Any]]) -> None:
    """The same weights, metrics, figures and verdict."""
    mine, theirs = weights(a[0]), weights(b[0])
    assert all(torch.equal(mine[key], theirs[key]) for key in mine.keys() | theirs.keys())
    rows = [
        [{k: v for k, v in row.items() if k not in MACHINE} for row in read_metrics(folder)]
        for folder, _ in (a, b)
    ]
    assert rows[0] == rows[1]
    for key in ("figures", "evidence", "verdict", "damaged_images"):
        assert a[1][key] == b[1][key], key


def pack(folder: Path, test: list[PackedSample]) -> Path:
    """96 digits to train on, one of them damaged, and others to test on."""
    folder.mkdir()
    train = digits(96)
    train[5] = replace(train[5], image=train[5].image[:-9])
    pack_dataset(folder, {"train": train, "val": test}, None, shard_size=32)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return pack(tmp_path / "data", digits(160)[96:])


def write_tars(folder: Path, parts: dict[str, ShardSet]) -> Path:
    """Shards as another program packs them, with what each shard of a part holds."""
    folder.mkdir()
    for name, part in parts.items():
        for number, (begin, end) in enumerate(zip(part.offsets, part.offsets[1:], strict=False)):
            with tarfile.open(folder / f"{name}-{number}.tar", "w") as tar:
                for key, image, label in map(part.read, range(int(begin), int(end))):
                    for ending, content in (("png", bytes(image)), ("cls", b"%d" % label)):
                        member = tarfile.TarInfo(f"{key}.{ending}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
    return folder


@pytest.mark.parametrize("more", [{}, {"data.views": "device"}])
def test_it_is_the_run_on_the_parts_packed_apart(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, object]
) -> None:
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path / "cache"))
    held = run({**HELD, **more, "dataset": str(data)}, "held")
    parts = open_run_data(load(held[0]))
    assert parts.test is not None
    apart = write_tars(tmp_path / "tars", {"train": parts.train, "val": parts.test})
    plain = run({**HELD, **more, "data.validation": 0.0, "dataset": str(apart)}, "apart")
    assert_same(held, plain)
    assert held[1]["damaged_images"] == 1
    assert held[1]["figures"][0]["test_images"] == 24
    assert (held[1]["measured_on"], plain[1]["measured_on"]) == ("validation", "test")
    assert held[1]["identity"] != plain[1]["identity"]


def test_no_test_image_decides_anything(run: Run, data: Path, tmp_path: Path) -> None:
    held = run({**HELD, "dataset": str(data)}, "held")
    labels = np.random.default_rng(0).permutation([each.label for each in digits(160)[96:]])
    others = [
        replace(sample, label=label, image=b"no image")
        for sample, label in zip(digits(160)[96:], labels.tolist(), strict=True)
    ]
    again = run({**HELD, "dataset": str(pack(tmp_path / "other-data", others))}, "again")
    assert_same(held, again)
    assert held[1]["identity"] == again[1]["identity"]


class _Cut(Exception):
    pass


class _Cutting(Progress):
    def advance(self, done: int, text: str = "") -> None:
        if done > 5:
            raise _Cut


def test_it_resumes_to_the_bit_and_is_measured_on_the_same_part_later(
    run: Run, tiny: Callable[..., Recipe], data: Path, tmp_path: Path
) -> None:
    settings = {**HELD, "dataset": str(data), "training.checkpoint_steps": 2}
    whole = run(settings, "whole")
    cut = tmp_path / "cut"
    with pytest.raises(_Cut):
        train(tiny(settings), cut, progress=_Cutting())
    with pytest.raises(InputError, match=r"data\.validation"):
        train(tiny({**settings, "data.validation": 0.5}), cut, resume=True, progress=Progress())
    assert_same(whole, (cut, train(tiny(settings), cut, resume=True, progress=Progress())))

    report = evaluate(open_target(str(cut)))
    assert report["data"]["measured_on"] == "validation"
    for key in ("protocol", "top1", "test_images"):
        assert [x[key] for x in report["figures"]] == [x[key] for x in whole[1]["figures"]]


def test_every_seed_and_arm_has_the_same_part(tiny: Callable[..., Recipe], data: Path) -> None:
    arms = ({}, {"training.seed": 7}, {"training.batch_size": 8, "predictor": "none"})

    def digests() -> Iterator[str]:
        for settings in arms:
            yield tiny({**HELD, "dataset": str(data), **settings}).open_data().digest

    assert len(set(digests())) == 1
    large = tiny({**HELD, "dataset": str(data), "training.batch_size": 80})
    with pytest.raises(InputError, match="72 samples: fewer than one global batch of 80"):
        large.sizes()
