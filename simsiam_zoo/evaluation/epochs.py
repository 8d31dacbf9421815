"""Epochs of a protocol that trains for long, saved on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.checkpoint import load_last, newest_checkpoint, save_checkpoint

SAVE_SECONDS = 60.0
"""A checkpoint is written at the end of an epoch if the last one is at least as old."""


def train_epochs(
    epochs: int, folder: Path | None, kept: Mapping[str, Any], train: Callable[[int], float]
) -> float:
    """Train epoch after epoch, from the last one that was saved on. Every rank calls it.

    Args:
        folder: of the checkpoints of this very training; None: nothing is saved.
        kept: the module, the optimiser and whatever else has a state_dict, by names.
        train: trains one epoch, counted from 0, and gives its loss, the same on every rank.

    Returns:
        The loss of the last epoch.

    DataError: the checkpoints are damaged.
    """
    begun, loss = 0, float("nan")
    if folder is not None and distributed.from_main(lambda: newest_checkpoint(folder)) is not None:
        state = distributed.from_main(lambda: load_last(folder)[0])
        for name, each in kept.items():
            each.load_state_dict(state[name])
        begun, loss = int(state["epochs"]), float(state["loss"])
    saved = time.monotonic()
    for epoch in range(begun, epochs):
        loss = train(epoch)
        if folder is not None and (epoch + 1 == epochs or time.monotonic() - saved >= SAVE_SECONDS):
            state = {name: each.state_dict() for name, each in kept.items()}
            state |= {"epochs": epoch + 1, "loss": loss}
            distributed.from_main(lambda: str(save_checkpoint(folder, epoch + 1, state)))  # noqa: B023
            saved = time.monotonic()
    return loss
