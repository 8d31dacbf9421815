"""One run, from the recipe to the verdict. The loop reads from top to bottom."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from simsiam_zoo.data.inspection import data_notes, order_warning
from simsiam_zoo.data.stream import STREAM_NOTE
from simsiam_zoo.errors import DivergedError, StoppedError
from simsiam_zoo.metrics import Latest
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import keep_threads, refuse_other_run
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.device import COMPILED, memory_trouble
from simsiam_zoo.runtime.optim import scaled_step
from simsiam_zoo.runtime.progress import Progress, open_progress
from simsiam_zoo.runtime.signals import StopRequest
from simsiam_zoo.runtime.watchdog import Watchdog
from simsiam_zoo.training.collapse import CollapseWatch
from simsiam_zoo.training.conclude import conclude, conclude_diverged
from simsiam_zoo.training.damage import DamageCount
from simsiam_zoo.training.loggers import Loggers
from simsiam_zoo.training.lookahead import in_blocks
from simsiam_zoo.training.measuring import RunEvaluation
from simsiam_zoo.training.meter import Meter
from simsiam_zoo.training.prefetch import prefetched
from simsiam_zoo.training.record import Record, disk_trouble
from simsiam_zoo.training.refusals import (
    look_into,
    refuse_differing,
    refuse_unused,
)
from simsiam_zoo.training.saving import Keeper, NotFiniteError, Reached, check_same, restore
from simsiam_zoo.training.setup import Setup, prepare, step_seed, to_device, train_loader
from simsiam_zoo.training.start import Start, keep_start, kept_start, start_from

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
    start: Start | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train, evaluate, judge. Under torchrun every rank calls it, and all get the same result.

    Args:
        recipe: what to do.
        out: the run's folder; new or empty, or the run to go on with. The first rank's counts.
        resume: go on with the run in `out`, from its last checkpoint.
        allow_bn_change: go on though BN will see another number of images at once.
        locked: a lock (`recipe.lock.read_locked`) that the run must be as it says.
        start: weights for a new run to start from; the recipe names them (`Start.named_in`).
        progress: where progress is shown; by default stderr. Ranks but the first show nothing.

    Returns:
        What `result.json` holds.

    Raises:
        InputError: `out` is taken or cannot be written, the data does not go with the recipe, or
            the run to resume is of another identity, the run is not as `locked` says, or memory
            does not suffice.
        PluginError: a component cannot be used.
        DataError: a shard, too many images or the checkpoint are damaged.
        DivergedError: the loss or the weights stopped being finite; `result.json` says so.
        StoppedError: a signal asked to stop; a checkpoint was written.
        PeerError: another rank failed.
    """
    # The caller's generators are none of our business.
    devices = range(torch.cuda.device_count())
    enough_memory = memory_trouble("the run", _TAKES_LESS)
    with distributed.joined(), torch.random.fork_rng(devices=devices), enough_memory:
        main = distributed.rank() == 0
        progress = (progress or open_progress()) if main else Progress()
        out = Path(distributed.from_main(lambda: str(out)))
        before, done = distributed.from_main(lambda: look_into(out, resume, recipe, start))
        if done is not None:
            progress.say(f"{out} is complete already")
            result: dict[str, Any] = done
            return result
        if before is not None:
            recipe = keep_threads(recipe, before)
        # A missing package ends the run here.
        specs = recipe.loggers() if main else []
        loggers = distributed.together(lambda: Loggers(specs, progress.say))
        setup = distributed.together(lambda: prepare(recipe))
        refuse_differing(setup)
        if recipe.training.init:
            kept_in = None if before is None else out
            setup = distributed.together(lambda: with_start(setup, start, kept_in))
        for note in [STREAM_NOTE] if recipe.data.stream else data_notes(setup.dataset):
            progress.say(f"note: {note}")
        if recipe.training.compile:
            progress.say(COMPILED)
        if before is not None:
            distributed.from_main(lambda: check_same(before, setup, progress, allow_bn_change))
        if locked is not None:
            for line in distributed.from_main(lambda: refuse_other_run(locked, setup.lock)):
                progress.say(f"warning: not as where the lock was made: {line}")
        record = Record(out, recipe, setup.lock, setup.identity, loggers, writes=main)
        with disk_trouble(out), record, progress:
            reached = Reached()
            if before is None:
                distributed.together(record.start)
                if start is not None:
                    distributed.together(lambda: keep_start(out, setup.start) if main else None)
                    progress.say(str(start))
            else:
                reached = distributed.together(lambda: restore(setup, record, progress))
            progress.say(headline(setup, reached.step))
            if warning := order_warning(
                setup.dataset.train, recipe.data.lanes * recipe.data.window
            ):
                progress.say(warning)
            evaluation = RunEvaluation(setup, out, progress)
            elapsed = run_steps(setup, record, evaluation, progress, reached)
            return conclude(setup, record, evaluation, progress, elapsed)


def run_steps(
    setup: Setup,
    record: Record,
    evaluation: RunEvaluation,
    progress: Progress,
    reached: Reached,
) -> float:
    """The training loop, from where the run is to its end. Returns all the seconds of training."""
    step, elapsed = reached.step, reached.elapsed
    siamese, optimizer, scaler = setup.siamese, setup.optimizer, setup.scaler
    training = setup.recipe.training
    hooks = bool(siamese.parts_after_step())
    meter = Meter(setup, reached.row)
    keeper = Keeper(setup, record, progress, meter)
    watch, damage = CollapseWatch(setup, evaluation), DamageCount(setup, record, progress)
    agree = distributed.Agreement()
    # It may have been interrupted while it concluded.
    collapsed = watch.stops(record.rows)
    done = bool(collapsed) or step == setup.steps
    if done:
        return elapsed
    go_on = f"Go on with: simsiam-zoo train --resume {record.folder}"
    began = time.monotonic() - elapsed
    with StopRequest() as stop, Watchdog(stop, training.grace_seconds, go_on) as watchdog:
        loaded_batches = train_loader(setup).batches(*divmod(step, setup.plan.steps))
        progress.begin("training", setup.steps, step, training.epochs)
        latest = Latest()
        siamese.train()
        batches = in_blocks(setup, meter.waited_for(loaded_batches), step)
        # What a block's policy is shown depends on the step before it: nothing is fetched then.
        ahead = not siamese.gradient.blocks
        place, device = partial(to_device, setup), setup.runtime.device
        for loaded, batch in prefetched(batches, place, device, ahead):
            keeper.note(step, time.monotonic() - began)
            # Re-seeded each step: dropout does not depend on where a run was interrupted.
            torch.manual_seed(step_seed(setup, step))
            setup.schedule.apply(optimizer, step)
            with setup.runtime.autocast():
                loss, output = setup.model(batch)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            if step == 0:
                refuse_unused(setup)
            if meter.is_due(step + 1):
                meter.take_gradients()
            if scaled_step(scaler, optimizer, ask=hooks):
                siamese.after_step(output, step, setup.steps)
            meter.add(loss, output.embeddings)
            found = damage.note(step, loaded.damaged)
            step += 1
            watchdog.beat()
            # One rank's wish is everyone's; among several it is heard a step later.
            overdue = distributed.rank() == 0 and keeper.overdue()
            wishes = agree(stop.requested, overdue, found, final=step == setup.steps)
            stop_now, save_now, damage_found = wishes
            too_damaged = bool(damage_found) and damage.exchange()

            # Only from here on does the device get waited for, and only now and then.
            if meter.is_due(step):
                row = meter.row(step) | ({"damaged": len(record.damaged)} if record.damaged else {})
                if not meter.finite(row):
                    stop_diverged(setup, record, step)
                record.write(row)
                progress.advance(step, latest.update(row))
            if evaluation.due(step) or watch.due(step):
                with meter.paused(), watchdog.paused():
                    row = {"step": step, "epoch": step // setup.plan.steps}
                    row |= evaluation.online()
                    record.write(row)
                    progress.advance(step, latest.update(row))
                    if watch.due(step):
                        collapsed = watch.stops(record.rows)
            done = bool(collapsed) or step == setup.steps
            if done or stop_now or too_damaged or save_now or keeper.due(step):
                with meter.paused(), watchdog.patient():
                    again = not (done or stop_now or too_damaged)
                    save(setup, record, keeper, step, time.monotonic() - began, done, again)
            if too_damaged:
                raise damage.error()
            if done or stop_now:
                break
        progress.end()
        if not done:
            raise StoppedError(f"stopped at step {step} of {setup.steps}; {kept(keeper)}", go_on)
    return time.monotonic() - began


def with_start(setup: Setup, start: Start | None, kept_in: Path | None) -> Setup:
    """The setup with the weights that the run starts from filled in, or those that it started from.

    Args:
        setup: as it was prepared.
        start: of a new run.
        kept_in: the folder of a run that goes on: its network comes from the checkpoint.

    Raises:
        InputError: the weights do not fit.
        PluginError: a part failed to set itself up for them.
        DataError: what the folder keeps is damaged.
    """
    if kept_in is not None:
        return replace(setup, start=kept_start(kept_in))
    assert start is not None  # `look_into` has looked
    start_from(setup.siamese, start.states, setup.recipe)
    lock = setup.lock | {"init": start.describe()}
    return replace(setup, start=start.states, lock=lock)


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
    if world > 1:
        words.append(f"{world} processes")
        if 0 < setup.bn_batch < training.batch_size:
            words.append(f"BN not synchronised: over {setup.bn_batch} images on each")
    if state := setup.siamese.gradient.per_sample_state():
        size = world * sum(rows.nbytes for rows in state.values())
        amount = f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
        words.append(f"{setup.recipe.gradient.name} keeps {amount} of the samples")
    if step:
        words.append(f"going on from step {step:,}")
    return "; ".join(words)


def save(
    setup: Setup, record: Record, keeper: Keeper, step: int, elapsed: float, done: bool, again: bool
) -> None:
    """Write a checkpoint; a run whose weights are not finite ends there."""
    try:
        keeper.save(step, elapsed, done, again)
    except NotFiniteError:
        stop_diverged(setup, record, step)


def kept(keeper: Keeper) -> str:
    """What a stopped run can go on from, in words."""
    return "which is saved" if keeper.saved is None else f"saved at step {keeper.saved}"


def stop_diverged(setup: Setup, record: Record, step: int) -> NoReturn:
    """Write the verdict and raise DivergedError."""
    if record.writes:
        conclude_diverged(setup, record, step)
    last = (record.checkpoints / "last.pt").resolve()  # its name has the step
    raise DivergedError(
        f"the run diverged: its loss or weights were not finite by step {step}",
        f"The last good checkpoint is {last}." if last.exists() else "Try a smaller --lr.",
    )
