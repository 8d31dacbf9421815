"""Several processes on the CPU: they compute what one does, and none of them hangs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.checkpoint import load_checkpoint, load_last
from simsiam_zoo.training.record import read_metrics

SCRIPT = Path(__file__).with_name("distributed_script.py")

# No batch statistics: what one process computes, several do too, but for rounding.
NORM_FREE: dict[str, object] = {
    "backbone": "timm:test_convnext",
    "projector": "mlp:layers=2,hidden_dim=32,out_dim=32,norm=none",
    "predictor": "mlp:hidden_dim=8,norm=none",
    "data.image_size": 32,
    "training.batch_size": 12,
    "training.precision": "fp64",
    "evaluation.protocols": [],
    "logging.knn_epochs": 0,
    "optim.lr": 0.2,
}


@pytest.fixture
def settings(tiny: Callable[..., Recipe], digit_shards: Path) -> dict[str, object]:
    from tests_settings import TINY

    return {**TINY, "dataset": str(digit_shards)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(commands: Sequence[Sequence[str]], **variables: str) -> list[subprocess.Popen[str]]:
    """One process for each rank, as a launcher would start them."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    world = {"WORLD_SIZE": str(len(commands)), "LOCAL_WORLD_SIZE": str(len(commands))}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                **address,
                **world,
                **variables,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
            },
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank, command in enumerate(commands)
    ]


def finish(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """(exit code, stderr) of each; none may outlive the others for long."""
    ends = []
    try:
        for process in processes:
            _, err = process.communicate(timeout=180)
            ends.append((process.returncode, err))
    finally:
        for process in processes:
            process.kill()
    return ends


def run_script(folder: Path, world: int, runs: list[list[object]]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "runs.json").write_text(json.dumps(runs))
    for code, err in finish(start([[str(SCRIPT), str(folder)]] * world)):
        assert code == 0, err


def weights(run: Path, step: int | None = None) -> dict[str, torch.Tensor]:
    if step is None:
        return load_last(run / "checkpoints")[0]["siamese"]
    return load_checkpoint(run / "checkpoints" / f"step-{step:08d}.pt")["siamese"]


def far_apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest difference, relative to the largest weight of its tensor."""
    assert a.keys() == b.keys()
    return max(
        float((a[key] - b[key]).abs().max() / a[key].abs().max().clamp_min(1e-30))
        for key in a
        if a[key].is_floating_point()
    )


def test_one_two_and_three_processes_compute_the_same(
    tmp_path: Path, settings: dict[str, object]
) -> None:
    """Also where a run begun by two processes is ended by three."""
    # 96 images: 8 steps an epoch of 12
    double = {**settings, **NORM_FREE, "training.epochs": 3, "training.checkpoint_steps": 4}
    single = {
        **double,
        "training.precision": "fp32",
        "training.epochs": 1,
        "training.checkpoint_steps": 5,
    }
    for world in (1, 2, 3):
        runs: list[list[object]] = [[double, "double", False, False], [single, "single", False, False]]
        if world == 3:  # what two began: its last checkpoint but one, of step 20
            begun = tmp_path / "3" / "begun"
            shutil.copytree(tmp_path / "2" / "double", begun, symlinks=True)
            for left in (begun / "checkpoints").glob("step-00000024.pt*"):
                left.unlink()
            (begun / "result.json").unlink()
            runs.append([double, "begun", True, False])
        run_script(tmp_path / str(world), world, runs)
    first = tmp_path / "1"
    for world in (2, 3):
        other = tmp_path / str(world)
        assert far_apart(weights(first / "double", 20), weights(other / "double", 20)) < 1e-9
        assert far_apart(weights(first / "single", 5), weights(other / "single", 5)) < 1e-5
    assert far_apart(weights(first / "double"), weights(tmp_path / "3" / "begun")) < 1e-9
    losses = [[row["loss"] for row in read_metrics(tmp_path / w / "double")[:20]] for w in "123"]
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    assert losses[2] == pytest.approx(losses[0], rel=1e-9)
