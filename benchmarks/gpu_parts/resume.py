"""Runs that are killed, stopped and resumed, beside one that nothing disturbs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from safetensors.torch import load_file

from gpu_parts.part import Found, Part, end_of
from gpu_parts.resident import noise, paper_setup
from shared.steps import bare_step, ratio, speed, take_turns

STOPPED = 75  # the exit code of a run that stopped on request
DETERMINISTIC = (
    "import torch; torch.use_deterministic_algorithms(True);"
    " from simsiam_zoo.cli import main; main()"
)


class Run:
    """A run of the command line, in a folder of its own.

    Args:
        part: whose folder and recipe it has.
        name: of its folder.
        deterministic: under `torch.use_deterministic_algorithms`.
    """

    def __init__(self, part: Part, name: str, deterministic: bool = False) -> None:
        self.part, self.folder = part, part.folder / name
        self._command = ["-c", DETERMINISTIC] if deterministic else ["-m", "simsiam_zoo"]
        recipe = part.recipe(
            training__epochs=part.pick(20, 1),
            training__checkpoint_steps=part.pick(50, 3),
            data__workers=part.pick(1, 0),
            evaluation__online_epochs=0,
            evaluation__protocols=["knn"],
            evaluation__baselines=False,
        )
        path = part.folder / f"{name}.toml"
        path.write_text(recipe.to_toml(), "utf-8")
        self._process = self._start("--recipe", str(path), "--out", str(self.folder))

    def _start(self, *flags: str) -> subprocess.Popen[str]:
        with (self.folder.parent / f"{self.folder.name}.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, *self._command, "train", *flags], stderr=log, stdout=log, text=True
            )

    def signal_after_checkpoints(self, number: int, sent: signal.Signals, code: int) -> int:
        """Send a signal once there are so many checkpoints. Returns the newest one's step."""
        checkpoints = self.folder / "checkpoints"
        while self._process.poll() is None and len(list(checkpoints.glob("step-*.pt"))) < number:
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(sent)
        self.ends_with(code)
        return max(int(path.stem[5:]) for path in checkpoints.glob("step-*.pt"))

    def resume(self) -> None:
        """Go on."""
        self._process = self._start("--resume", str(self.folder))

    def ends_with(self, code: int = 0) -> None:
        """Wait for the end. Raises RuntimeError where it is another one."""
        found = self._process.wait(timeout=max(1.0, self.part.left))
        if found != code:
            log = self.folder.parent / f"{self.folder.name}.log"
            told = end_of(log.read_text("utf-8", "replace"))
            raise RuntimeError(f"{self.folder.name} ended with {found}, not {code}:\n{told}")

    def weights(self) -> dict[str, torch.Tensor]:
        """Of the backbone."""
        return load_file(self.folder / "backbone.safetensors")

    def losses(self) -> dict[int, float]:
        """By step."""
        lines = (self.folder / "metrics.jsonl").read_text("utf-8").splitlines()
        rows = map(json.loads, lines)
        return {row["step"]: row["loss"] for row in rows if "loss" in row}


def apart(one: Run, other: Run) -> Found:
    """How far the ends of two runs are from each other."""
    ours, theirs = one.weights(), other.weights()
    assert ours.keys() == theirs.keys()
    names = [name for name, value in ours.items() if value.is_floating_point()]
    gap = sum(float((ours[n].double() - theirs[n].double()).square().sum()) for n in names)
    size = sum(float(theirs[n].double().square().sum()) for n in names)
    losses, others = one.losses(), other.losses()
    last = max(others)
    return {
        "steps": max(losses),
        "weights apart, relative": (gap / size) ** 0.5,
        "same to the bit": "yes" if all(torch.equal(ours[n], theirs[n]) for n in ours) else "no",
        "last losses apart": abs(losses[last] - others[last]),
    }


def run(part: Part) -> None:
    """All runs at once, since most of a short run's time is its start."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    plain, killed, stopped = (Run(part, name) for name in ("undisturbed", "killed", "stopped"))
    steady = Run(part, "deterministic", deterministic=True)
    if part.rehearsal:  # on the CPU all of them are the same, and each costs a start
        again, steady_again = steady, plain
    else:
        again = Run(part, "again")
        steady_again = Run(part, "deterministic-again", deterministic=True)

    def interrupt() -> Found:
        return {
            "killed, newest checkpoint": killed.signal_after_checkpoints(
                2, signal.SIGKILL, -signal.SIGKILL
            ),
            "stopped, newest checkpoint": stopped.signal_after_checkpoints(
                2, signal.SIGTERM, STOPPED
            ),
        }

    part.case("interrupted", interrupt)
    killed.resume()
    stopped.resume()

    def compare(one: Run, other: Run) -> Callable[[], Found]:
        def work() -> Found:
            one.ends_with()
            other.ends_with()
            return apart(one, other)

        return work

    part.case("killed and resumed, against undisturbed", compare(killed, plain))
    part.case("stopped and resumed, against undisturbed", compare(stopped, plain))
    part.case("undisturbed twice", compare(again, plain))
    part.case("deterministic algorithms, twice", compare(steady, steady_again))
    part.case("what deterministic algorithms cost", partial(cost, part), needs=part.pick(10, 0))


def cost(part: Part) -> Found:
    """Of ResNet-18's step at 32 px, with and without, in turns."""
    size, images = part.pick((32, 512), (16, 4))
    setup, batch = paper_setup(part, "cifar10", size, images), noise(part.device, images, size)

    def step(deterministic: bool) -> None:
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = not deterministic and part.device.type == "cuda"
        bare_step(setup, batch)

    try:
        sides = [partial(step, True), partial(step, False)]
        taken = take_turns(part.device, sides, part.pick(1.0, 0.1), 3, images)
    finally:
        torch.use_deterministic_algorithms(False)
    return {
        "images/s, deterministic": speed(taken[0]),
        "images/s": speed(taken[1]),
        "ratio": ratio(*taken),
    }
