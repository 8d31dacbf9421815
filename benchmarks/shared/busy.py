"""A training step beside other processes, with several ways of OpenMP's threads to wait.

OpenMP reads its settings once, when torch is loaded. So each way has a process of its own, which
takes steps when it is told to, and the ways take turns.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")


class Stepper:
    """A process that takes bare steps of a preset under its own environment.

    Args:
        variables: of its environment, in place of all that say how OpenMP's threads wait.
        preset: whose step, on random batches.
        threads: `training.threads`.
    """

    def __init__(self, variables: Mapping[str, str], preset: str, threads: int) -> None:
        kept = {key: value for key, value in os.environ.items() if key not in WAITING}
        self.process = subprocess.Popen(
            [sys.executable, __file__, preset, str(threads)],
            env={**kept, **variables, "PYTHONPATH": str(Path(__file__).parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.speed(0.5)  # it is ready then, and warm

    def speed(self, seconds: float) -> float:
        """Samples/s over about that many seconds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(seconds, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def __enter__(self) -> Stepper:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def speeds_beside(
    ways: Mapping[str, tuple[int, Mapping[str, str]]],
    others: tuple[int, ...],
    preset: str,
    seconds: float,
    blocks: int,
) -> dict[int, dict[str, list[float]]]:
    """Samples/s of each way beside each number of busy processes, block by block.

    A run chooses its threads when it starts, so the busy processes are there before it.

    Args:
        ways: `training.threads` of each, and its environment variables.
        others: how many busy processes run beside.
        preset: whose step is taken.
        seconds: of a block.
        blocks: of each way beside each number.
    """
    found: dict[int, dict[str, list[float]]] = {}
    for count in others:
        with ExitStack() as ends:
            for _ in range(count):
                busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
                ends.callback(busy.wait)
                ends.callback(busy.kill)
            steppers = {
                way: ends.enter_context(Stepper(variables, preset, threads))
                for way, (threads, variables) in ways.items()
            }
            speeds: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(blocks):
                for way, stepper in steppers.items():
                    speeds[way].append(stepper.speed(seconds))
        found[count] = speeds
    return found


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the ratios of neighbouring blocks."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def take_steps(preset: str, threads: int) -> None:
    """What a `Stepper` runs: for each number of seconds on stdin, the samples/s on stdout."""
    import torch

    from shared.steps import bare_step
    from simsiam_zoo.model.siamese import Batch
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.training.setup import prepare

    setup = prepare(Recipe.make(preset, settings={"training.threads": threads}))
    setup.schedule.apply(setup.optimizer, 0)
    recipe = setup.recipe
    size, batch = recipe.data.image_size, recipe.training.batch_size
    views = torch.randn(2, batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    ready = Batch([view.contiguous(memory_format=torch.channels_last) for view in views])
    for line in sys.stdin:
        began, steps = time.perf_counter(), 0
        while steps < 2 or time.perf_counter() - began < float(line):
            bare_step(setup, ready)
            steps += 1
        print(steps * batch / (time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    take_steps(sys.argv[1], int(sys.argv[2]))
