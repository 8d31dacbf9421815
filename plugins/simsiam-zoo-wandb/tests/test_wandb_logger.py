"""The logger `wandb`, offline: what real runs leave in its files, read back by their format."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from simsiam_zoo import Recipe
from simsiam_zoo.plugin import PackedSample, PluginError, pack_dataset
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.run_folder import read_metrics
from simsiam_zoo.training.train import train

SMALL: dict[str, object] = {
    "backbone": "test_resnet",
    "data.image_size": 16,
    "data.workers": 0,
    "projector": "mlp:layers=2,hidden_dim=32,out_dim=32",
    "predictor": "mlp:hidden_dim=8",
    "training.batch_size": 16,
    "training.epochs": 2,
    "training.threads": 1,
    "training.precision": "fp32",
    "training.checkpoint_steps": 4,
    "logging.interval_steps": 1,
    "evaluation.online_epochs": 1,
    "evaluation.rank_samples": 48,
    "evaluation.baselines": False,
}
"""Two epochs of six steps on 96 of scikit-learn's digits."""


class Cut(Exception):
    pass


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    images, labels = load_digits(return_X_y=True)
    samples = [
        PackedSample(f"{i:04d}", png((x.reshape(8, 8) * 15).astype(np.uint8)), "png", int(y))
        for i, (x, y) in enumerate(zip(images[:160], labels[:160], strict=True))
    ]
    classes = tuple(str(digit) for digit in range(10))
    pack_dataset(folder, {"train": samples[:96], "val": samples[96:]}, classes, shard_size=32)
    return folder


@pytest.fixture
def recipe(shards: Path) -> Callable[[str], Recipe]:
    """`recipe("wandb:mode=offline")` → a recipe of a run of a second with that logger."""

    def make(spec: str) -> Recipe:
        settings = {**SMALL, "dataset": str(shards), "logging.loggers": [spec]}
        return Recipe.make("digits", None, settings)

    return make


def records(file: Path) -> Iterator[Any]:
    """A .wandb file is a header of 7 bytes and LevelDB's log format, each record a message."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = file.read_bytes()
    assert data[:4] == b":W&B"
    position, body = 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:  # the end of a block holds no header
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        if position + 7 + length > len(data):
            return  # it is being written
        body += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield Record.FromString(body)
            body = b""


def values(items: Any) -> dict[str, Any]:
    return {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in items}


class Logged:
    """What one file holds."""

    def __init__(self, file: Path) -> None:
        self.rows: list[dict[str, Any]] = []
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.id, self.name, self.exit_code = "", "", None
        for record in records(file):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                row = values(record.history.item)
                kept = {key: value for key, value in row.items() if key[0] != "_"}
                self.rows.append({"step": row["_step"], **kept})
            elif kind == "run":
                self.id = record.run.run_id
                self.name = record.run.display_name
                self.config |= values(record.run.config.update)
            elif kind == "summary":
                self.summary |= values(record.summary.update)
            elif kind == "exit":
                self.exit_code = record.exit.exit_code


def logged(folder: Path) -> list[Logged]:
    """What each run's file holds, once the newest has come to its end.

    A process of wandb's own writes it, and on a busy machine it may be behind.
    """
    files = sorted(
        folder.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime
    )
    until = time.monotonic() + 30
    while Logged(files[-1]).exit_code is None and time.monotonic() < until:
        time.sleep(0.05)
    return [Logged(file) for file in files]


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    machine = {"data_wait", "memory_gb", "images_per_second"}
    return [{key: row[key] for key in row.keys() - machine} for row in rows]


def by_step(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one step as one, as wandb has them."""
    merged: dict[int, dict[str, Any]] = {}
    for row in rows:
        merged.setdefault(row["step"], {}).update(row)
    return list(merged.values())


def test_listing_the_logger_does_not_import_wandb() -> None:
    code = "import sys, simsiam_zoo_wandb; list(simsiam_zoo_wandb.zoo_components()); "
    code += "sys.exit('wandb' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_run_is_logged_with_its_rows_its_recipe_and_its_verdict(
    recipe: Callable[[str], Recipe], tmp_path: Path
) -> None:
    asked = recipe("wandb:mode=offline,project=mine")
    result = train(asked, tmp_path / "run", progress=Progress())
    (log,) = logged(tmp_path / "run")
    assert log.rows == by_step(read_metrics(tmp_path / "run"))
    assert [row["step"] for row in log.rows] == list(range(1, result["steps"] + 1))
    config = {key: value for key, value in log.config.items() if key != "_wandb"}
    assert config == json.loads(json.dumps(asked.to_dict()))
    assert log.id == (tmp_path / "run" / "wandb-id.txt").read_text().strip()
    assert log.name == "run"
    assert log.summary["verdict"] == result["verdict"]
    for figure in result["figures"]:
        name = f"{figure['network']} {figure['protocol']}"
        assert log.summary[name] == figure["top1"]
    assert log.exit_code == 0  # it was finished
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"  # and told nobody


def test_a_run_that_goes_on_keeps_its_id_and_logs_every_step(
    recipe: Callable[[str], Recipe], tmp_path: Path
) -> None:
    asked = recipe("wandb:mode=offline")

    class Cutting(Progress):
        def advance(self, done: int, text: str = "") -> None:
            if done == 7:
                raise Cut

    folder = tmp_path / "run"
    with pytest.raises(Cut):
        train(asked, folder, progress=Cutting())
    train(asked, folder, resume=True, progress=Progress())
    first, second = logged(folder)
    assert first.id == second.id
    rows = by_step(read_metrics(folder))
    assert second.rows == rows[4:]  # from the checkpoint of step 4 on
    assert untimed(first.rows) == untimed(rows[:7])  # of which three have come again, as they were


def test_a_logger_that_fails_does_not_stop_the_run(
    recipe: Callable[[str], Recipe], tmp_path: Path
) -> None:
    said: list[str] = []

    class Telling(Progress):
        def say(self, text: str) -> None:
            said.append(text)

    result = train(recipe("wandb:mode=offline,project=a/b"), tmp_path / "run", progress=Telling())
    assert result["steps"] == 12
    (told,) = [text for text in said if "wandb" in text]
    assert "failed and gets no more rows" in told
    assert "nvalid" in told
    assert (tmp_path / "run" / "result.json").exists()


def test_who_is_not_logged_in_is_told_before_the_run_begins(
    recipe: Callable[[str], Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    with pytest.raises(PluginError, match="nobody is logged in") as caught:
        train(recipe("wandb"), tmp_path / "run", progress=Progress())
    assert caught.value.exit_code == 3
    assert "wandb:mode=offline" in str(caught.value)
    assert not (tmp_path / "run").exists()
