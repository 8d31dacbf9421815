"""One run, from the recipe to the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from simsiam_zoo.data.inspection import data_notes, order_warning
from simsiam_zoo.data.stream import STREAM_NOTE
from simsiam_zoo.errors import InputError
from simsiam_zoo.model.siamese import Loss
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import keep_choices, read_lock, refuse_other_run
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.device import COMPILED, memory_trouble
from simsiam_zoo.runtime.progress import Progress, open_progress
from simsiam_zoo.training.conclude import conclude
from simsiam_zoo.training.loop import Control, run_steps
from simsiam_zoo.training.measuring import RunEvaluation
from simsiam_zoo.training.run_folder import Loggers, RunFolder, disk_trouble, look_into, read_result
from simsiam_zoo.training.setup import Setup, prepare
from simsiam_zoo.training.state import TrainState, check_same, restore
from simsiam_zoo.training.weights import InitialWeights, States, load_init, save_init

_TAKES_LESS = (
    "A smaller --batch-size, --precision bf16 or a smaller part takes less, and several processes"
    " (torchrun) share the batch."
)


def train(
    recipe: Recipe,
    out: Path | str,
    *,
    resume: bool = False,
    allow_bn_change: bool = False,
    locked: dict[str, Any] | None = None,
    init: InitialWeights | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train, evaluate, judge. Every rank calls it; all get what `result.json` holds.

    Arguments and errors are those of `simsiam_zoo.train` (`training/run.py`), and InputError where
    memory does not suffice; the recipe names the weights of `init` (`named_in`).
    """
    # Leave the caller's random generators unchanged.
    devices = range(torch.cuda.device_count())
    enough_memory = memory_trouble("the run", _TAKES_LESS)
    with distributed.joined(), torch.random.fork_rng(devices=devices), enough_memory:
        main = distributed.rank() == 0
        progress = (progress or open_progress()) if main else Progress()
        out = Path(distributed.from_main(lambda: str(out)))
        state = distributed.from_main(lambda: look_into(out, resume))
        if state == "complete":
            progress.say(f"{out} is complete already")
            return distributed.from_main(lambda: read_result(out)) or {}
        before = None  # the lock of a run that goes on
        if state == "begun":
            before = distributed.from_main(lambda: read_lock(out))
            recipe = keep_choices(recipe, before)
        # A missing package ends the run here.
        specs = recipe.loggers() if main else []
        loggers = distributed.together(lambda: Loggers(specs, progress.say))
        goes_on = None if before is None else out
        states = distributed.together(lambda: initial_states(recipe, init, goes_on))
        with progress.stage("opening the data and building the network"):
            setup = distributed.together(lambda: prepare(recipe, states))
        check_setup(setup, before, locked, allow_bn_change, progress)
        lock = setup.lock if init is None else setup.lock | {"init": init.describe()}
        folder = RunFolder(out, recipe, lock, setup.identity, loggers)
        with disk_trouble(out), folder, progress:
            if before is None:
                reached = TrainState()
                start_folder(folder, init, progress)
            else:
                reached = distributed.together(lambda: restore(setup, folder, progress))
            progress.say(headline(setup, reached.step))
            with Control(setup, folder, progress) as control:
                evaluation = RunEvaluation(setup, out, progress)
                elapsed = run_steps(setup, folder, evaluation, progress, reached, control)
                with control.evaluating():
                    return conclude(setup, folder, evaluation, progress, elapsed)


def check_setup(
    setup: Setup,
    before: dict[str, Any] | None,
    locked: dict[str, Any] | None,
    allow_bn_change: bool,
    progress: Progress,
) -> None:
    """Refuse a run that differs among ranks, from its lock `before` or from the one it is held to.

    `progress` is told what there is to know before the first step.
    """
    of_ranks = distributed.collect((setup.identity, setup.lock["data"]["digest"]))
    for rank, (identity, digest) in enumerate(of_ranks):
        if identity != of_ranks[0][0]:  # other shards on another machine, say
            what = "reads other data than" if digest != of_ranks[0][1] else "has other parts than"
            raise InputError(
                f"rank {rank} {what} rank 0: their runs would be {identity} and {of_ranks[0][0]}",
                "Give all machines the same shards, plugins and recipe.",
            )
    for line in setup_notes(setup):
        progress.say(line)
    if before is not None:
        distributed.from_main(lambda: check_same(before, setup, progress, allow_bn_change))
    if locked is not None:
        for line in distributed.from_main(lambda: refuse_other_run(locked, setup.lock)):
            progress.say(f"warning: not as where the lock was made: {line}")


def start_folder(folder: RunFolder, init: InitialWeights | None, progress: Progress) -> None:
    """Write what a new run's folder begins with: on the first rank, while the others wait."""
    distributed.together(folder.start)
    if not all(distributed.collect((folder.path / "recipe.toml").exists())):
        folder.withdraw()
        raise InputError(
            f"not all processes see {folder.path}",
            "Say an --out on a file system that all machines share.",
        )
    if init is not None:
        first = distributed.rank() == 0
        distributed.together(lambda: save_init(folder.path, init.states) if first else None)
        progress.say(str(init))


def initial_states(recipe: Recipe, init: InitialWeights | None, folder: Path | None) -> States:
    """The weights that the run starts from in place of random ones, or those that it started from.

    A new run has `init`, and a recipe that names it; one that goes on has them in its folder.
    """
    if folder is not None:
        return load_init(folder) if recipe.training.init else {}
    if init is not None:
        return init.states
    if named := recipe.training.init:
        raise InputError(
            f"the recipe starts from the weights {named} (training.init), and none are given",
            "Say --init RUN with the run, or timm:pretrained, that they are from.",
        )
    return {}


def setup_notes(setup: Setup) -> list[str]:
    """What a run says before it starts of its data, and of what its recipe costs."""
    training, data, loss = setup.recipe.training, setup.recipe.data, setup.siamese.loss
    about_data = [STREAM_NOTE] if data.stream else data_notes(setup.dataset)
    lines = [f"note: {note}" for note in about_data]
    if warning := order_warning(setup.dataset.train, data.lanes * data.window):
        lines.append(warning)
    lines += [COMPILED] if training.compile else []
    if training.accumulate > 1 and isinstance(loss, Loss) and loss.whole_batch:
        images = training.batch_size // training.accumulate
        lines.append(
            f"warning: loss {setup.recipe.loss.name} compares the images of a batch with each"
            f" other, and with training.accumulate = {training.accumulate} it sees {images} of"
            f" {training.batch_size} at once: it is another loss than with the whole batch"
        )
    return lines


def headline(setup: Setup, step: int) -> str:
    """What is about to happen, in a line."""
    runtime, training = setup.runtime, setup.recipe.training
    images = "a stream" if setup.recipe.data.stream else f"{setup.plan.samples:,} images"
    world = distributed.world_size()
    words = [
        f"{setup.recipe.backbone.name} on {images}",
        f"{setup.steps:,} steps of {training.batch_size}",
        f"{runtime.device}, {runtime.precision}",
    ]
    if setup.views != "worker":
        there = "views made" if setup.resident else "views finished"
        words.append(f"{there} on the device")
    if world > 1:
        words.append(f"{world} processes")
    if training.accumulate > 1:
        words.append(f"{training.accumulate} micro-batches")
    if 0 < setup.bn_batch < training.batch_size:
        words.append(f"BN's statistics are over {setup.bn_batch} images")
    if state := setup.siamese.gradient.per_sample_state():
        size = world * sum(rows.nbytes for rows in state.values())
        amount = f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
        words.append(f"{setup.recipe.gradient.name} keeps {amount} of the samples")
    if step:
        words.append(f"going on from step {step:,}")
    return "; ".join(words)
