"""Whether a change of the code left alone what a run computes.

    python tests/unchanged.py record FILE     # before the change
    python tests/unchanged.py compare FILE    # after it, on the same machine

Trains small runs with the command line alone: the `digits` preset with two seeds, four policies and
predictors with state, one of them on two processes and one killed and resumed. Of each it notes the
SHA-256 of the final weights, the rows of `metrics.jsonl` without times, and the figures and the
evidence of `result.json`. `compare` prints what differs and exits with 1 if the weights do, or
anything else that is not named by `--allow PREFIX` (`--allow row:knn`, `--allow figure:top5`, ...).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

ZOO = ["-m", "simsiam_zoo", "train", "--preset", "digits", "--set", "training.threads=1"]
SHORT = ["--epochs", "4"]
RUNS: dict[str, tuple[str, list[str]]] = {
    "digits, seed 0": ("plain", ["--seed", "0"]),
    "digits, seed 1, fp32": ("plain", ["--seed", "1", "--precision", "fp32"]),
    "alternation": ("plain", [*SHORT, "--gradient", "alternation:k=5"]),
    "moving-average": (
        "plain",
        [*SHORT, "--gradient", "moving-average", "--predictor", "none"],
    ),
    "directpred, killed and resumed": ("killed", [*SHORT, "--predictor", "directpred"]),
    "momentum, two processes": ("torchrun", [*SHORT, "--gradient", "momentum"]),
}
UNSTEADY = ("seconds", "elapsed", "images_per_s", "memory", "wait", "speed", "time")
"""Parts of the names of what may differ between two runs of one identity."""


def train(how: str, flags: list[str], folder: Path) -> None:
    """Train into `folder` as `how` says."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    alone = [sys.executable, *ZOO, *flags, "--out", str(folder)]
    if how == "torchrun":
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
        alone = [sys.executable, *launcher, *alone[1:]]
    if how == "killed":
        alone += ["--set", "training.checkpoint_steps=5"]
        process = subprocess.Popen(alone, env=env, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list(folder.glob("checkpoints/step-*.pt")):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        alone = [sys.executable, *ZOO[:3], "--resume", str(folder)]
    subprocess.run(alone, env=env, check=True, stdout=subprocess.DEVNULL)


def weights(folder: Path) -> str:
    """SHA-256 of all the network's weights and buffers, by their names."""
    state = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["siamese"]
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\0".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def facts(folder: Path) -> dict[str, Any]:
    """Name → value of all that must stay; the names say where it stands."""
    found: dict[str, Any] = {"weights": weights(folder)}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        for key, value in row.items():
            if not any(word in key for word in UNSTEADY):
                found[f"row:{key} at step {row['step']}"] = value
    result = json.loads((folder / "result.json").read_text())
    for figure in result["figures"]:
        for key, value in figure.items():
            where = f"{figure['network']}, {figure['protocol']}"
            found[f"figure:{key} of {where}"] = value
    for key, value in result["evidence"].items():
        found[f"evidence:{key}"] = value
    found["verdict"] = result["verdict"]
    return found


def differences(there: dict[str, Any], here: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Names with what was recorded and what is there now; None: nothing."""
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            yield name, there.get(name), here.get(name)


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", default="", help="runs whose name holds this")
    parser.add_argument("--allow", action="append", default=[], help="names that begin so")
    given = parser.parse_args()
    recorded = json.loads(given.file.read_text()) if given.what == "compare" else {}
    changed = 0
    for name, (how, flags) in RUNS.items():
        if given.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            train(how, flags, Path(folder) / "run")
            found = facts(Path(folder) / "run")
        if given.what == "record":
            recorded[name] = found
            print(f"{name}: {len(found)} facts, weights {found['weights'][:16]}", flush=True)
            continue
        found_differences = list(differences(recorded[name], found))
        print(f"{name}: {len(found_differences)} of {len(found)} facts differ", flush=True)
        for where, old, new in found_differences:
            allowed = any(where.startswith(prefix) for prefix in given.allow)
            changed += not allowed
            print(f"  {'(allowed) ' if allowed else ''}{where}: {old} before, {new} now")
    if given.what == "record":
        given.file.write_text(json.dumps(recorded, indent=1) + "\n")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
