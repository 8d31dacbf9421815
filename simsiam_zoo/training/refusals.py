"""What stops a run before or at its first step: a folder, weights, ranks, parts that do not do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simsiam_zoo.errors import InputError, PluginError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import read_lock
from simsiam_zoo.runtime import distributed
from simsiam_zoo.training.record import read_result, refuse_occupied
from simsiam_zoo.training.setup import Setup
from simsiam_zoo.training.start import Start


def look_into(
    out: Path, resume: bool, recipe: Recipe, start: Start | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The lock of the run to go on with, and its result if it is complete; else None.

    Processes that torchrun started anew go on with what they began.

    Raises:
        InputError: the folder is taken, or there is no run to go on with.
    """
    again = distributed.restarts() > 0 and (out / "recipe.toml").exists()
    if not resume and not again:
        refuse_occupied(out)
        refuse_without_weights(recipe, start)
        return None, None
    if again and not resume and not (out / "checkpoints" / "last.pt").exists():
        return None, None  # it had not come to a checkpoint
    return read_lock(out), read_result(out)


def refuse_without_weights(recipe: Recipe, start: Start | None) -> None:
    """Stop a new run of a recipe that starts from weights, without them: it would start elsewhere.

    Raises:
        InputError: it is such a recipe.
    """
    named, given = recipe.training.init, "" if start is None else start.digest[:16]
    if named == given:
        return
    raise InputError(
        f"the recipe starts from the weights {named or 'that are random'} (training.init), and the"
        f" run from {given or 'random ones'}",
        "Say --init RUN with the run, or timm:pretrained, that they are from; a run that was made"
        " by `simsiam-zoo import` goes on by --resume.",
    )


def refuse_differing(setup: Setup) -> None:
    """Stop where the ranks would not train one run: other shards on another machine, say.

    Raises:
        InputError: the identities differ.
    """
    of_ranks = distributed.collect((setup.identity, setup.lock["data"]["digest"]))
    for rank, (identity, digest) in enumerate(of_ranks):
        if identity != of_ranks[0][0]:
            what = "reads other data than" if digest != of_ranks[0][1] else "has other parts than"
            raise InputError(
                f"rank {rank} {what} rank 0: their runs would be {identity} and {of_ranks[0][0]}",
                "Give all machines the same shards, plugins and recipe.",
            )


def refuse_unused(setup: Setup) -> None:
    """Among several processes, stop at parameters that have no part in the loss: DDP cannot wait.

    Raises:
        PluginError: there are some.
    """
    if not distributed.is_distributed():
        return
    named = setup.siamese.named_parameters()
    unused = [name for name, p in named if p.requires_grad and p.grad is None]
    if unused:
        part = unused[0].partition(".")[0]
        raise PluginError(
            f"{part} {getattr(setup.recipe, part).name} has parameters that no loss depends on"
            f" ({unused[0]}{f' and {len(unused) - 1} more' if len(unused) > 1 else ''}), which"
            " training on several processes does not allow",
            "Train on one process, or freeze them (requires_grad_(False)).",
        )
