from __future__ import annotations

import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset


def image(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def shards(tmp_path):
    """Ordered by class."""
    (tmp_path / "shards").mkdir()
    samples = [PackedSample(f"{i}", image(i), "png", i // 4) for i in range(16)]
    pack_dataset(tmp_path / "shards", {"train": samples, "val": samples[:2]}, tuple("abcd"), 4)
    return tmp_path / "shards"


def test_inspect_tells_what_is_there_and_draws_views(zoo_here, shards, tmp_path):
    done = zoo_here("inspect", "shards", "--check", "--grid", "grid.png", "--preset", "cifar10")
    assert done.returncode == 0, done.stderr
    assert "4 classes" in done.stdout
    assert "train: the shards are ordered by class: one holds 1.0 classes" in done.stdout
    assert "test: the shards are ordered" not in done.stdout
    assert Image.open(tmp_path / "grid.png").width > 800
    told = json.loads(zoo_here("inspect", "shards", "--json").stdout)
    assert told["splits"]["train"]["labels"] == {"0": 4, "1": 4, "2": 4, "3": 4}
    assert told["splits"]["train"]["class_order"]["ordered"] is True
    assert told["classes"] == ["a", "b", "c", "d"]


def test_damage_is_listed_and_ends_with_4(zoo_here, shards):
    path = shards / "train-000001.tar"
    content, time = bytearray(path.read_bytes()), path.stat().st_mtime_ns
    content[content.index(b"IDAT") + 20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(time, time))  # a disk that errs changes no time
    done = zoo_here("inspect", "shards", "--json")
    assert done.returncode == 4
    assert "1 of the 18 images looked at are damaged" in done.stderr
    (damaged,) = json.loads(done.stdout)["splits"]["train"]["damaged"]
    assert damaged["sample"] == "shards/train-000001.tar: 4"
    plain = zoo_here("inspect", "shards")
    assert "shards/train-000001.tar: 4" in plain.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no data at nowhere"),
        (["shards", "--preset", "cifar10"], "--grid draws"),
        (["shards", "--grid", "g.png", "--preset", "cifar11"], "cifar10"),
        (["shards", "--grid", "/proc/g.png"], "cannot be written"),
    ],
)
def test_wrong_input_ends_with_2(zoo_here, shards, arguments, words):
    done = zoo_here("inspect", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_training_on_class_ordered_shards_warns(zoo_here, shards):
    done = zoo_here(
        *("train", "--data", "./shards", "--preset", "digits", "--epochs", "1"),
        *("--batch-size", "8", "--set", "data.workers=0", "--set", "data.window=2"),
        *("--projector", "mlp:layers=1,out_dim=32", "--predictor", "mlp:hidden_dim=8"),
        *("--set", "data.image_size=16", "--set", "evaluation.protocols=[]"),
        *("--set", "evaluation.rank_samples=8"),
        *("--set", "evaluation.baselines=false", "--set", "evaluation.online_epochs=0"),
    )
    assert "warning: the shards are ordered by class" in done.stderr
