"""One's own images in one command, as a new user would: no preset, no shards, no labels."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
from PIL import Image

SMALL = (
    *("--backbone", "test_resnet", "--projector", "mlp:layers=2,hidden_dim=32,out_dim=32"),
    *("--epochs", "1", "--set", "training.threads=1", "--set", "data.workers=0"),
    *("--set", "evaluation.rank_samples=16", "--set", "data.image_size=16"),
)


def photos(folder: Path, classes: tuple[str, ...], count: int) -> None:
    generator = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            shape = (*generator.integers(20, 60, 2), 3)
            image = Image.fromarray(generator.integers(0, 256, shape, np.uint8))
            image.save(folder / name / f"IMG {i} é.jpg")


def test_photos_without_labels_then_evaluated_on_some_with_labels(
    zoo_here, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path / "cache"))
    photos(tmp_path / "my photos", ("",), 24)
    done = zoo_here("train", "--data", "./my photos", *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    assert "preset photos" in done.stderr
    assert "packing my photos into the cache, once: 24 training images, no labels" in done.stderr
    result = json.loads(done.stdout)
    assert result["folder"] == "runs/photos-my-photos-backbone-test_resnet-seed0"
    assert result["figures"] == []
    recipe = tomllib.loads((tmp_path / result["folder"] / "recipe.toml").read_text())
    assert recipe["data"]["mean"] != [0.5, 0.5, 0.5]
    assert recipe["training"]["batch_size"] == 8
    lock = tomllib.loads((tmp_path / result["folder"] / "lock.toml").read_text())
    assert lock["recipe"]["data"]["mean"] == recipe["data"]["mean"]

    photos(tmp_path / "labelled", ("ant", "bee"), 10)
    evaluated = ("evaluate", result["folder"], "--data", "./labelled", "--protocol", "knn:k=5")
    done = zoo_here(*evaluated, "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    about = json.loads(done.stdout)["data"]
    assert (about["train_images"], about["test_images"]) == (16, 4)
    assert about["measured_on"] == "validation"


def test_pack_takes_an_archive_too(zoo_here, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path / "cache"))
    photos(tmp_path / "in" / "insects", ("ant", "bee"), 3)
    shutil.make_archive(str(tmp_path / "insects"), "zip", tmp_path / "in")
    done = zoo_here("pack", "insects.zip", "new/shards", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["splits"]["train"]["samples"] == 6
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["shards"]


def test_a_study_of_own_images_takes_their_preset_and_name(
    zoo_here, tmp_path: Path, monkeypatch
) -> None:
    photos(tmp_path / "insects", ("ant", "bee"), 10)
    study = ("ablate", "stop-gradient", "--set", "dataset=./insects", "--dry-run", "--json")
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path / "cache"))
    done = zoo_here(*study)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["preset"] == "photos"
    assert plan["folder"] == "runs/stop-gradient-photos-insects"
