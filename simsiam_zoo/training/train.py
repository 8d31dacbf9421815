"""One run, from the recipe to the verdict. The loop reads from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.data.class_order import order_warning
from simsiam_zoo.data.keyed import derive_key
from simsiam_zoo.data.loader import LoadedBatch
from simsiam_zoo.data.stream import WEAKER
from simsiam_zoo.errors import DataError, DivergedError, InputError, StoppedError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import first_difference, read_lock
from simsiam_zoo.runtime.checkpoint import load_last, save_checkpoint
from simsiam_zoo.runtime.distributed import refuse_many_processes
from simsiam_zoo.runtime.optim import all_finite
from simsiam_zoo.runtime.signals import StopRequest
from simsiam_zoo.training.collapse import CollapseWatch
from simsiam_zoo.training.conclude import conclude, conclude_diverged
from simsiam_zoo.training.loggers import Loggers
from simsiam_zoo.training.meter import Meter
from simsiam_zoo.training.monitor import look
from simsiam_zoo.training.record import Record, disk_trouble, read_result, refuse_occupied
from simsiam_zoo.training.screen import Screen, default_screen
from simsiam_zoo.training.setup import Setup, prepare, to_device, train_loader

LEAST_DAMAGED = 16
"""Damaged images that end no run, however small its data, unless `data.max_damaged` is 0."""


def train(
    recipe: Recipe, out: Path | str, *, resume: bool = False, screen: Screen | None = None
) -> dict[str, Any]:
    """Train, evaluate, judge.

    Args:
        recipe: what to do.
        out: the run's folder; new or empty, or the run to go on with.
        resume: go on with the run in `out`, from its last checkpoint.
        screen: where progress is shown; by default stderr.

    Returns:
        What `result.json` holds.

    Raises:
        InputError: `out` is taken or cannot be written, the data does not go with the recipe, or
            the run to resume is of another identity.
        PluginError: a component cannot be used.
        DataError: a shard, too many images or the checkpoint are damaged.
        DivergedError: the loss or the weights stopped being finite; `result.json` says so.
        StoppedError: a signal asked to stop; a checkpoint was written.
    """
    refuse_many_processes()
    out = Path(out)
    screen = screen or default_screen()
    before = read_lock(out) if resume else None
    if before is None:
        refuse_occupied(out)
    elif (done := read_result(out)) is not None:
        screen.say(f"{out} is complete already")
        return done
    loggers = Loggers(recipe.loggers(), screen.say)  # a missing package ends the run here
    # The caller's generators are none of our business.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        setup = prepare(recipe)
        if recipe.data.stream:
            screen.say(WEAKER)
        if before is not None:
            check_same(before, setup, screen)
        record = Record(out, recipe, setup.lock, setup.identity, loggers)
        with disk_trouble(out), record, screen:
            step, elapsed = restore(setup, record, screen) if before else (0, 0.0)
            if before is None:
                record.start()
            screen.say(headline(setup, step))
            if warning := order_warning(
                setup.dataset.train, recipe.data.lanes * recipe.data.window
            ):
                screen.say(warning)
            elapsed = run_steps(setup, record, screen, step, elapsed)
            return conclude(setup, record, screen, elapsed)


def run_steps(setup: Setup, record: Record, screen: Screen, step: int, elapsed: float) -> float:
    """The training loop, from `step` to the end. Returns the seconds spent training in all."""
    siamese, optimizer, scaler = setup.siamese, setup.optimizer, setup.scaler
    training = setup.recipe.training
    parts: list[Any] = [siamese.get_submodule(name) for name in PARTS]
    after_step = [part.after_step for part in parts if hasattr(part, "after_step")]
    look_epochs = epochs_between_looks(setup.recipe)
    meter, watch = Meter(setup), CollapseWatch(setup)
    collapsed = watch.stops(record.rows)  # it may have been interrupted while it concluded
    if collapsed:
        return elapsed
    began = saved = time.monotonic()
    with StopRequest() as stop:
        batches = until(stop, train_loader(setup).batches(*divmod(step, setup.plan.steps)))
        batches = meter.waited_for(batches)
        screen.begin(step, setup.steps, training.epochs, training.batch_size)
        siamese.train()
        for loaded in batches:
            if record.list_damaged(step, loaded.damaged) and too_damaged(setup, record, screen):
                save(setup, record, screen, step, elapsed + time.monotonic() - began)
                stop_damaged(setup, record)
            # Re-seeded each step: dropout does not depend on where a run was interrupted.
            torch.manual_seed(derive_key(training.seed, step))
            setup.schedule.apply(optimizer, step)
            batch = to_device(setup, loaded)
            with setup.runtime.autocast():
                loss = siamese(batch)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            if meter.is_due(step + 1):
                meter.take_gradients()
            scaler.step(optimizer)
            scaler.update()
            with torch.no_grad():
                for hook in after_step:
                    hook(siamese, step, setup.steps)
            meter.add(loss, siamese.latest)
            step += 1

            # Only from here on does the device get waited for, and only now and then.
            if meter.is_due(step):
                row = meter.row(step) | ({"damaged": len(record.damaged)} if record.damaged else {})
                if not meter.finite(row):
                    stop_diverged(setup, record, screen, step)
                record.write(row)
                screen.show(row)
            if is_look(step, setup, look_epochs) or watch.is_look(step):
                with meter.paused():
                    row = {"step": step, "epoch": step // setup.plan.steps, **look(setup)}
                record.write(row)
                screen.show(row)
                with meter.paused():
                    collapsed = watch.stops(record.rows)
            now = time.monotonic()
            due = training.checkpoint_steps and step % training.checkpoint_steps == 0
            due = due or now - saved > 60 * training.checkpoint_minutes
            if due or collapsed or step == setup.steps:
                with meter.paused():
                    save(setup, record, screen, step, elapsed + now - began)
                saved = time.monotonic()
            if stop.requested or collapsed:
                break
        screen.end()
        if step < setup.steps and not collapsed:
            save(setup, record, screen, step, elapsed + time.monotonic() - began)
            raise StoppedError(
                f"stopped at step {step} of {setup.steps}, which is saved",
                f"Go on with: simsiam-zoo train --resume {record.folder}",
            )
    return elapsed + time.monotonic() - began


def headline(setup: Setup, step: int) -> str:
    """What is about to happen, in a line."""
    runtime, training = setup.runtime, setup.recipe.training
    images = "a stream" if setup.recipe.data.stream else f"{setup.plan.samples:,} images"
    words = [
        f"{setup.recipe.backbone.name} on {images}",
        f"{setup.steps:,} steps of {training.batch_size}",
        f"{runtime.device}, {runtime.precision}",
    ]
    if step:
        words.append(f"going on from step {step:,}")
    return "; ".join(words)


def until(stop: StopRequest, batches: Iterator[LoadedBatch]) -> Iterator[LoadedBatch]:
    """The batches; none any more if the loader ended because its workers got the signal too."""
    try:
        yield from batches
    except DataError:
        if not stop.requested:
            raise


def epochs_between_looks(recipe: Recipe) -> int:
    """Epochs from one look of the monitor to the next; 0: none."""
    chosen = recipe.logging.knn_epochs
    return max(1, math.ceil(recipe.training.epochs / 10)) if chosen == "auto" else chosen


def is_look(step: int, setup: Setup, look_epochs: int) -> bool:
    """Whether the monitor looks after `step` steps: at the end of each n-th epoch."""
    epoch, rest = divmod(step, setup.plan.steps)
    return bool(look_epochs) and rest == 0 and epoch % look_epochs == 0 and step < setup.steps


def save(setup: Setup, record: Record, screen: Screen, step: int, elapsed: float) -> None:
    """Write a checkpoint, unless the weights are not finite: those are never saved."""
    if not all_finite(list(setup.siamese.state_dict().values())):
        stop_diverged(setup, record, screen, step)
    state = {
        "identity": setup.identity,
        "step": step,
        "elapsed": elapsed,
        "siamese": setup.siamese.state_dict(),
        "optimizer": setup.optimizer.state_dict(),
        "scaler": setup.scaler.state_dict(),
    }
    save_checkpoint(record.checkpoints, step, state)


def restore(setup: Setup, record: Record, screen: Screen) -> tuple[int, float]:
    """Load the last whole checkpoint, cut the metrics back to it. Returns (step, seconds)."""
    state, path, damage = load_last(record.checkpoints)
    for line in damage:
        screen.say(f"warning: {line}; going on from {path.name}")
    if state.get("identity") != setup.identity:
        raise InputError(f"the checkpoint {path} is of another run ({state.get('identity')})")
    setup.siamese.load_state_dict(state["siamese"])
    setup.optimizer.load_state_dict(state["optimizer"])
    setup.scaler.load_state_dict(state["scaler"])
    record.resume(state["step"])
    return int(state["step"]), float(state["elapsed"])


def check_same(before: dict[str, Any], setup: Setup, screen: Screen) -> None:
    """Refuse to go on with a run that would compute something else; warn of smaller changes.

    Raises:
        InputError: the identity differs; the first difference is named.
    """
    if before.get("identity") != setup.identity:
        where = first_difference(
            {key: before.get(key) for key in ("parts", "data")},
            {key: setup.lock.get(key) for key in ("parts", "data")},
        )
        raise InputError(
            "the run to resume is of another identity"
            f" ({where or 'a key of the recipe that is not operational differs'})",
            "Train anew with another --out, or bring back what has changed.",
        )
    for name in ("software", "machine"):
        if where := first_difference(before.get(name, {}), setup.lock[name], name):
            screen.say(f"warning: not where the run began: {where}")


def too_damaged(setup: Setup, record: Record, screen: Screen) -> bool:
    """Say what was found, once; and whether it is more than the recipe puts up with."""
    share, found = setup.recipe.data.max_damaged, len(record.damaged)
    first = next(iter(record.damaged.values()))
    if found == 1:
        screen.say(
            f"warning: {first['sample']}: {first['damage']}; replaced by the next good image of its"
            f" batch, as any other will be (listed in {record.folder / 'damaged.jsonl'})"
        )
    return found > (max(LEAST_DAMAGED, share * setup.plan.samples) if share else 0)


def stop_damaged(setup: Setup, record: Record) -> NoReturn:
    """Raise the DataError of a run that met too many damaged images."""
    listed = list(record.damaged.values())
    first = "".join(f"\n    {row['sample']}: {row['damage']}" for row in listed[:3])
    raise DataError(
        f"{len(listed)} of {setup.plan.samples} training images are damaged so far, more than"
        f" data.max_damaged = {setup.recipe.data.max_damaged} puts up with. The first:{first}",
        f"Restore the shards ({record.folder / 'damaged.jsonl'} lists all), or raise"
        f" data.max_damaged; --resume {record.folder} goes on.",
    )


def stop_diverged(setup: Setup, record: Record, screen: Screen, step: int) -> None:
    """Write the verdict and raise DivergedError."""
    conclude_diverged(setup, record, step)
    last = (record.checkpoints / "last.pt").resolve()  # its name has the step
    raise DivergedError(
        f"the run diverged: its loss or weights were not finite by step {step}",
        f"The last good checkpoint is {last}." if last.exists() else "Try a smaller --lr.",
    )
