"""Ends runs that have only to be measured and judged, in processes that are cheap to start."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
from multiprocessing import get_context
from pathlib import Path

Batches = list[list[int]]


def end(run: Path, world: int = 1, killed_at: int = -1) -> tuple[list[int | None], list[Batches]]:
    """Let ranks end a run: the exit code of each, and what the ranks that came to the end did.

    That is the ids of each batch whose features the rank took for the final scores.

    Args:
        run: the run's folder.
        world: how many ranks.
        killed_at: at the batch of this number a rank gets SIGKILL; -1: never.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = get_context("forkserver")
    context.set_forkserver_preload(["timm", "sklearn.linear_model", "simsiam_zoo.training.train"])
    notes = [run.parent / f"{run.name}-{rank}.json" for rank in range(world)]
    for note in notes:
        note.unlink(missing_ok=True)
    processes = [
        context.Process(target=_rank, args=(rank, world, port, run, notes[rank], killed_at))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        process.kill()
    found = [json.loads(note.read_text()) for note in notes if note.exists()]
    return [process.exitcode for process in processes], found


def _rank(rank: int, world: int, port: int, run: Path, note: Path, killed_at: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    os.environ |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    import torch

    from simsiam_zoo.evaluation.frozen_pass import FrozenPass
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.runtime.progress import Progress
    from simsiam_zoo.training import measuring
    from simsiam_zoo.training.train import train

    torch.set_num_threads(1)
    ids: Batches = []
    real = FrozenPass._rows

    def rows(self, networks, loader, what):
        for row in real(self, networks, loader, what):
            if what != "images for the rank":
                if len(ids) == killed_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                ids.append(row[0].tolist())
            yield row

    FrozenPass._rows = rows
    measuring.FrozenPass = functools.partial(FrozenPass, batch=16)
    recipe = Recipe.of_run(run / "recipe.toml")
    train(recipe, run, resume=True, allow_bn_change=True, progress=Progress())
    note.write_text(json.dumps(ids))
