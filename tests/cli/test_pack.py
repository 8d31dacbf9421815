"""`simsiam-zoo pack` as a user types it, in real processes, one of them killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """600 images of 3 classes, one of them cut off."""
    folder = tmp_path / "images"
    generator = np.random.default_rng(0)
    for number in range(600):
        path = folder / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    damaged = folder / "a" / "0.png"
    damaged.write_bytes(damaged.read_bytes()[:-50])
    return folder


def parents() -> dict[int, int]:
    """The parent of every process, as /proc tells."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(path.parent.name)] = int(parent)
    return found


def descendants(pid: int) -> set[int]:
    found, known = {pid}, parents()
    while more := {child for child, parent in known.items() if parent in found} - found:
        found |= more
    return found - {pid}


def alive(pid: int) -> bool:
    return pid in parents()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_killed_packing_goes_on_and_gives_the_same_bytes(zoo, images, tmp_path):
    options = ["--shard-size", "20", "--quiet"]
    whole = zoo("pack", str(images), "whole", *options, "--jobs", "1", "--json")
    assert whole.returncode == 0, whole.stderr
    assert json.loads(whole.stdout)["splits"]["train"]["samples"] == 599
    assert json.loads(whole.stdout)["damaged"] == 1
    assert "1 of 600 images are damaged" in whole.stderr

    command = [sys.executable, "-m", "simsiam_zoo", "pack", str(images), "out", *options]
    out = tmp_path / "out"
    process = subprocess.Popen([*command, "--jobs", "2"], cwd=tmp_path, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(list(out.glob("*.tar"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.005)
    family = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while any(map(alive, family)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert family or not Path("/proc").exists()
    assert not any(map(alive, family))  # no worker outlives it
    kept = {path.name: path.stat().st_mtime_ns for path in (out / ".packing").glob("*.tar.json")}
    assert 0 < len(kept) < 30
    refused = zoo("inspect", "out")
    assert refused.returncode == 2
    assert "interrupted" in refused.stderr

    again = zoo("pack", str(images), "out", *options, "--jobs", "2")
    assert again.returncode == 0, again.stderr
    assert contents(out) == contents(tmp_path / "whole")
    assert (out / "train-000000.tar").stat().st_mtime_ns < min(
        (out / name).stat().st_mtime_ns for name in ("manifest.json", "damaged.jsonl")
    )
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


def test_a_signal_stops_packing_with_75_and_two_at_once_are_refused(zoo, images, tmp_path):
    command = [sys.executable, "-m", "simsiam_zoo", "pack", str(images), "out"]
    process = subprocess.Popen(
        [*command, "--shard-size", "2", "--jobs", "2"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    out = tmp_path / "out"
    deadline = time.monotonic() + 60
    while len(list(out.glob("*.tar"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGSTOP)  # so that it cannot finish first
    second = zoo("pack", str(images), "out", "--shard-size", "2", "--quiet")
    os.kill(process.pid, signal.SIGTERM)
    os.kill(process.pid, signal.SIGCONT)
    assert second.returncode == 2
    assert "being packed into by another process" in second.stderr
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "The same command again goes on" in stderr
    assert "Traceback" not in stderr
    assert not (out / "manifest.json").exists()


WRONG = {
    "nothing there": (["nowhere", "out"], "no folder or archive nowhere"),
    "no images": (["empty", "out"], "no images; looked for"),
    "a full folder": (["images", "images"], "no empty folder"),
    "a file for a folder": (["images", "file"], "no empty folder"),
    "an unwritable folder": (["images", "/proc/out"], "cannot be written"),
    "too few names": (["images", "out", "--classes", "names"], "2 class names, but a label 2"),
    "no names": (["images", "out", "--classes", "nowhere"], "nowhere cannot be read"),
    "a size of 0": (["images", "out", "--shard-size", "0"], "--shard-size"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_ends_with_2_and_nothing_written(zoo, images, tmp_path, case):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "names").write_text("x\ny\n")
    arguments, expected = WRONG[case]
    done = zoo("pack", *arguments)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    there = {path.name for path in tmp_path.iterdir()}
    assert there - {"wheels"} == {"empty", "file", "images", "names"}


def test_debians_fashion_mnist_is_packed_inspected_and_trained_on(zoo, tmp_path):
    if not FASHION.is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    done = zoo("pack", str(FASHION), "fashion", "--limit", "128", "--shard-size", "64")
    assert done.returncode == 0, done.stderr
    told = zoo("inspect", "fashion", "--json")
    assert told.returncode == 0, told.stderr
    report = json.loads(told.stdout)
    assert report["splits"]["train"]["samples"] == 128
    assert report["splits"]["train"]["sizes"] == {"28 x 28": 128}
    assert "Ankle boot" in report["classes"]
    trained = zoo(
        *("train", "--data", "./fashion", "--preset", "digits", "--epochs", "1"),
        *("--batch-size", "32", "--set", "data.workers=0", "--set", "evaluation.rank_samples=64"),
        *("--projector", "mlp:layers=1,out_dim=32", "--predictor", "mlp:hidden_dim=8"),
        *("--set", "data.image_size=16"),
        *(
            "--set",
            "evaluation.baselines=false",
            "--set",
            'evaluation.protocols=["knn"]',
            "--json",
            "--quiet",
            "--out",
            "run",
        ),
    )
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["steps"] == 4
