"""One rank of `simsiam-zoo evaluate`, in a process of its own that is cheap to start."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

Words = list[str]
WORLD = 2


def start_ranks(folder: Path, *commands: Words, killed_in_epoch: int | None = None) -> list[int]:
    """Let two ranks go through commands; their exit codes, as `subprocess` has them.

    FOLDER/ids-RANK.json lists the ids of each batch whose features the rank took from centre views;
    FOLDER/err-RANK.txt is what the last command said.

    Args:
        folder: of what they leave.
        commands: words of the command line, one command after another.
        killed_in_epoch: of `linear-paper`, in the last command: rank 1 gets SIGKILL there.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = get_context("forkserver")
    context.set_forkserver_preload(["timm", "simsiam_zoo.evaluation.evaluate"])
    processes = [
        context.Process(target=_rank, args=(rank, port, folder, commands, killed_in_epoch))
        for rank in range(WORLD)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    return [process.exitcode for process in processes]


def _rank(
    rank: int, port: int, folder: Path, commands: tuple[Words, ...], killed_in_epoch: int | None
) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(WORLD), "OMP_NUM_THREADS": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    import torch

    from simsiam_zoo.cli import main
    from simsiam_zoo.evaluation import epochs
    from simsiam_zoo.evaluation.augmented import AugmentedViews
    from simsiam_zoo.evaluation.frozen_pass import FrozenPass
    from simsiam_zoo.evaluation.protocol import Features
    from simsiam_zoo.runtime import distributed

    torch.set_num_threads(1)
    epochs.SAVE_SECONDS = 0.0  # so that each epoch is saved
    ids: list[list[int]] = []
    real_rows, real_call = FrozenPass._rows, AugmentedViews.__call__

    def rows(self, *arguments):
        for row in real_rows(self, *arguments):
            ids.append(row[0].tolist())
            yield row

    def deadly(self, epoch: int, batch: int) -> Iterator[Features]:
        for number, features in enumerate(real_call(self, epoch, batch)):
            if (epoch, number, rank) == (killed_in_epoch, 1, 1):
                os.kill(os.getpid(), signal.SIGKILL)
            yield features

    FrozenPass._rows = rows
    with distributed.joined():  # once for all commands
        for place, words in enumerate(commands):
            if place == len(commands) - 1:
                AugmentedViews.__call__ = deadly
            with (folder / f"err-{rank}.txt").open("w") as err:
                os.dup2(err.fileno(), 2)
                try:
                    main(words)
                except SystemExit as done:
                    if done.code:
                        os._exit(done.code)  # the others may be waiting in the group
            (folder / f"ids-{rank}.json").write_text(json.dumps(ids))
