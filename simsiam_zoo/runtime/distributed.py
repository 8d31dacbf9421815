"""The processes of a run. One, for now."""

from __future__ import annotations

import os

from simsiam_zoo.errors import InputError


def refuse_many_processes() -> None:
    """Stop a run that torchrun started with several processes: each would train on its own.

    Raises:
        InputError: WORLD_SIZE is more than 1.
    """
    world = os.environ.get("WORLD_SIZE", "1")
    if world != "1":
        raise InputError(
            f"WORLD_SIZE is {world}: training on several processes is not supported yet",
            "Start it without torchrun.",
        )
