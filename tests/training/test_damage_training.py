"""Runs over damaged shards: counted, listed, carried over a resume, ended where it is too much."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.data.sources import open_shards
from simsiam_zoo.errors import DataError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.run_folder import read_metrics
from simsiam_zoo.training.train import train


class Listening(Progress):
    def __init__(self, until: int = 1000) -> None:
        self.said: list[str] = []
        self.until = until

    def say(self, text: str) -> None:
        self.said.append(text)

    def advance(self, done: int, text: str = "") -> None:
        if done > self.until:
            raise InterruptedError


@pytest.fixture
def hurt(digit_shards: Path, tmp_path: Path) -> Callable[..., dict[str, object]]:
    """The settings of a run over the digits with the first n images of each split damaged."""

    def make(train: int, test: int = 0) -> dict[str, object]:
        whole = open_shards(str(digit_shards))
        splits = {}
        for name, split, bad in (("train", whole.train, train), ("val", whole.test, test)):
            samples = [split.read(i) for i in range(len(split))]
            splits[name] = [
                PackedSample(s.key, bytes(s.image)[: 30 if i < bad else None], "png", s.label)
                for i, s in enumerate(samples)
            ]
        folder = tmp_path / f"hurt-{train}-{test}"
        folder.mkdir()
        pack_dataset(folder, splits, whole.classes, shard_size=32)
        return {"dataset": str(folder), "training.checkpoint_steps": 2}

    return make


def listed(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "damaged.jsonl").read_text().splitlines()]


def test_damaged_images_are_counted_and_listed_once_and_the_run_goes_on(
    tiny: Callable[..., Recipe], hurt: Callable[..., dict[str, object]], tmp_path: Path
) -> None:
    recipe, folder, progress = tiny(hurt(5)), tmp_path / "run", Listening()
    result = train(recipe, folder, progress=progress)
    rows = listed(folder)
    assert {row["id"] for row in rows} == set(range(5))
    assert len(rows) == 5  # of two epochs
    assert all("cut off" in str(row["damage"]) for row in rows)
    assert result["damaged_images"] == 5
    assert [r["damaged"] for r in read_metrics(folder) if "loss" in r][5:] == [5] * 7
    assert len([line for line in progress.said if "damaged.jsonl" in line]) == 1

    with pytest.raises(InterruptedError):
        train(recipe, tmp_path / "cut", progress=Listening(until=2))
    train(recipe, tmp_path / "cut", resume=True, progress=Progress())
    assert listed(tmp_path / "cut") == rows


def test_too_many_damaged_images_end_the_run_and_a_higher_limit_goes_on(
    tiny: Callable[..., Recipe], hurt: Callable[..., dict[str, object]], tmp_path: Path
) -> None:
    settings, folder = hurt(17), tmp_path / "run"
    with pytest.raises(DataError, match=r"17 of 96 training images.*0\.001") as caught:
        train(tiny(settings), folder, progress=Progress())
    assert caught.value.exit_code == 4
    assert str(caught.value).count("cut off") == 3
    assert len(listed(folder)) == 17
    again = train(
        tiny({**settings, "data.max_damaged": 0.2}), folder, resume=True, progress=Progress()
    )
    assert again["damaged_images"] == 17

    with pytest.raises(DataError, match="1 of 96"):
        train(tiny({**hurt(1), "data.max_damaged": 0.0}), tmp_path / "none", progress=Progress())


def test_a_damaged_test_image_is_an_error_that_loses_no_training(
    tiny: Callable[..., Recipe], hurt: Callable[..., dict[str, object]], tmp_path: Path
) -> None:
    settings, folder = hurt(0, test=2), tmp_path / "run"
    with pytest.raises(DataError, match=r"val-000000\.tar: 0096"):
        train(tiny({**settings, "evaluation.online_epochs": 1}), folder, progress=Progress())
    assert (folder / "checkpoints" / "step-00000012.pt").exists()
