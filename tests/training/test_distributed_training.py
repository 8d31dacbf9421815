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
from typing import Any

import pytest
import torch

from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime.checkpoint import load_checkpoint, load_last
from simsiam_zoo.training.run_folder import read_metrics
from simsiam_zoo.training.train import train

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
    "evaluation.online_epochs": 0,
    "optim.lr": 0.2,
}


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


def run_script(folder: Path, world: int, runs: list[list[Any]]) -> None:
    """Each run, [recipe, folder, resume, allow_bn_change], on so many ranks; one: this process."""
    folder.mkdir(exist_ok=True)
    if world == 1:
        for recipe, name, resume, allow_bn_change in runs:
            (folder / f"{name}.toml").write_text(recipe)
            own = Recipe.make(None, folder / f"{name}.toml")
            train(own, folder / name, resume=resume, allow_bn_change=allow_bn_change)
        return
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
    tmp_path: Path, tiny: Callable[..., Recipe]
) -> None:
    """Also where a run begun by two processes is ended by three."""
    # 96 images: 8 steps an epoch of 12
    several = {**NORM_FREE, "training.epochs": 3, "training.checkpoint_steps": 4}
    double = tiny(several).to_toml()
    few = {"training.precision": "fp32", "training.epochs": 1, "training.checkpoint_steps": 5}
    single = tiny({**NORM_FREE, **few}).to_toml()
    for world in (1, 2, 3):
        runs: list[list[Any]] = [
            [double, "double", False, False],
            [single, "single", False, False],
        ]
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


@pytest.fixture
def recipe(tiny: Callable[..., Recipe], tmp_path: Path) -> Callable[..., str]:
    """`recipe({"training.epochs": 3})` → the file of a recipe of a long run."""

    def write(settings: dict[str, object] | None = None) -> str:
        file = tmp_path / "recipe.toml"
        long: dict[str, object] = {"training.epochs": 1000, "training.checkpoint_steps": 2}
        file.write_text(tiny({**long, **(settings or {})}).to_toml())
        return str(file)

    return write


def wait_for(folder: Path, step: int, processes: Sequence[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + 150
    while not any(row["step"] >= step for row in read_metrics(folder)):
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_torchrun_trains_starts_a_killed_rank_anew_stops_together_and_goes_on(
    recipe: Callable[..., str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, "--max-restarts=1", "-m", "simsiam_zoo", "train"]
    command += ["--recipe", recipe(), "--out", str(folder)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
    wait_for(folder, 5, [process])
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(ranks[-1]), signal.SIGKILL)
    wait_for(folder, read_metrics(folder)[-1]["step"] + 5, [process])  # started anew
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=90)
    assert process.returncode != 0  # torchrun has no other code than 1
    assert "going on from step" in err
    assert err.count("Error: stopped at step") == 1
    assert f"torchrun ... -m simsiam_zoo train --resume {folder}" in err
    state, _, damage = load_last(folder / "checkpoints")
    assert not damage
    assert max(row["step"] for row in read_metrics(folder)) == state["step"]

    # BN saw halves of the batch: one process alone would see wholes.
    alone = [sys.executable, "-m", "simsiam_zoo", "train", "--resume", str(folder)]
    refused = subprocess.run(alone, capture_output=True, text=True, env=env, timeout=120)
    assert refused.returncode == 2
    assert "over 8 images at a time" in refused.stderr
    assert "--allow-bn-change" in refused.stderr


def test_a_killed_rank_ends_the_others_and_the_checkpoint_is_kept(
    recipe: Callable[..., str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    command = ["-m", "simsiam_zoo", "train", "--recipe", recipe(), "--out", str(folder)]
    processes = start([command] * 2)
    wait_for(folder, 5, processes)
    processes[1].kill()
    began = time.monotonic()
    (code, err), _ = finish(processes)
    assert time.monotonic() - began < 60
    assert code == 1
    assert "Error: another process of the run is gone" in err
    assert load_last(folder / "checkpoints")[0]["step"] >= 4


def test_an_error_on_one_rank_ends_the_others(
    recipe: Callable[..., str], digit_shards: Path, tmp_path: Path
) -> None:
    """A shard that changes under one rank only."""
    folder, copy = tmp_path / "run", tmp_path / "copy"
    shutil.copytree(digit_shards, copy)
    command = ["-m", "simsiam_zoo", "train", "--recipe", recipe(), "--out", str(folder)]
    processes = start([command, [*command, "--data", str(copy)]])
    wait_for(folder, 3, processes)
    for shard in copy.glob("train-*.tar"):
        with shard.open("r+b") as file:
            file.write(bytes(shard.stat().st_size))
    (code, err), (their_code, their_err) = finish(processes)
    assert (code, their_code) == (1, 4)
    assert "Error on rank 1" in their_err
    assert "since it was indexed" in their_err
    assert "Error: another process of the run is gone" in err


def test_a_rank_that_reads_other_shards_is_refused_before_the_first_step(
    recipe: Callable[..., str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    command = ["-m", "simsiam_zoo", "train", "--recipe", recipe(), "--out", str(folder)]
    (code, err), (their_code, _) = finish(start([command, [*command, "--data", "digits"]]))
    assert (code, their_code) == (2, 2)
    assert "rank 1 reads other data than rank 0" in err
    assert not (folder / "recipe.toml").exists()


def test_a_port_that_is_taken_is_named(recipe: Callable[..., str], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = ["-m", "simsiam_zoo", "train", "--recipe", recipe(), "--out", str(tmp_path / "r")]
        env = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": port}
        ((code, err),) = finish(start([command], **env))
    assert code == 2
    assert f"cannot meet at 127.0.0.1:{port}" in err
    assert "--master-port" in err
