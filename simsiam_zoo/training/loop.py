"""The training loop: a step, and what is done around it."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from simsiam_zoo.errors import DivergedError, PluginError
from simsiam_zoo.metrics import Latest
from simsiam_zoo.model.siamese import Batch, StepOutput
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.checkpoint import newest_checkpoint
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.batches import (
    in_blocks,
    micro_batches,
    step_seed,
    to_device,
    train_loader,
)
from simsiam_zoo.training.conclude import CollapseWatch, conclude_diverged
from simsiam_zoo.training.control import Control
from simsiam_zoo.training.measuring import RunEvaluation
from simsiam_zoo.training.meter import Meter
from simsiam_zoo.training.optimizer import clip_gradients, scaled_step
from simsiam_zoo.training.run_folder import MetricsRow, RunFolder
from simsiam_zoo.training.setup import Setup
from simsiam_zoo.training.state import Checkpointer, TrainState


@dataclass(frozen=True)
class TakenStep:
    """What a step of the optimiser leaves behind for the figures; nothing was waited for.

    Args:
        loss: the mean over the micro-batches, a scalar.
        output: of the gradient policy, of all of this rank's images.
        gradient_norm: before it was clipped, a scalar; None where it is not wanted.
    """

    loss: Tensor
    output: StepOutput
    gradient_norm: Tensor | None


def take_step(setup: Setup, batch: Batch, step: int, want_norm: bool) -> TakenStep:
    """Step number `step` (from 0) of the optimiser, on this rank's share of a batch, on the device.

    The share passes the network in `training.accumulate` micro-batches, whose mean loss is
    minimised; the ranks exchange gradients once, with the last one.
    """
    siamese, optimizer, scaler = setup.siamese, setup.optimizer, setup.scaler
    # Re-seeded each step: dropout does not depend on where a run was interrupted.
    torch.manual_seed(step_seed(setup, step))
    setup.schedule.apply(optimizer, step)
    optimizer.zero_grad(set_to_none=True)
    losses, outputs = [], []
    pieces = micro_batches(setup, batch)
    for piece in pieces:
        exchange: AbstractContextManager[None] = nullcontext()
        if isinstance(setup.model, DistributedDataParallel) and piece is not pieces[-1]:
            exchange = setup.model.no_sync()
        with exchange:
            with setup.runtime.autocast():
                loss, output = setup.model(piece)
            scaler.scale(loss / len(pieces)).backward()
        losses.append(loss.detach())
        outputs.append(output)
    if step == 0:
        refuse_unused(setup)
    norm, limit = None, setup.recipe.optim.clip_norm
    if want_norm or limit:
        scaler.unscale_(optimizer)  # the optimiser's step does it not again
        norm = clip_gradients(optimizer, limit)
    output = StepOutput.joined(outputs)
    if scaled_step(scaler, optimizer, ask=bool(siamese.parts_after_step())):
        siamese.after_step(output, step, setup.steps)
    return TakenStep(torch.stack(losses).mean(), output, norm if want_norm else None)


def run_steps(
    setup: Setup,
    folder: RunFolder,
    evaluation: RunEvaluation,
    progress: Progress,
    state: TrainState,
    control: Control,
) -> float:
    """The training loop, from where the run is to its end. Returns all the seconds of training."""
    step, begun_at = state.step, time.monotonic() - state.elapsed
    meter = Meter(setup, state.row)
    checkpointer = Checkpointer(setup, folder, progress, meter)
    watch = CollapseWatch(setup, evaluation)
    if watch.stops(folder.rows) or step == setup.steps:
        return state.elapsed  # it was interrupted while it concluded
    collapsed = None
    progress.begin("training", setup.steps, step, setup.recipe.training.epochs)
    latest = Latest()

    def log(row: MetricsRow) -> None:
        folder.write(row)
        progress.advance(row["step"], latest.update(row))

    setup.siamese.train()
    loaded_batches = train_loader(setup).batches(*divmod(step, setup.plan.steps))
    batches = in_blocks(setup, meter.waited_for(loaded_batches), step)
    for loaded in batches:
        checkpointer.note(step, time.monotonic() - begun_at)
        taken = take_step(setup, to_device(setup, loaded), step, want_norm=meter.is_due(step + 1))
        meter.add(taken.loss, taken.output.embeddings, taken.gradient_norm)
        final = step + 1 == setup.steps
        wishes = control.after_step(step, loaded.damaged, checkpointer.overdue())
        step += 1

        # Only from here on does the device get waited for, and only now and then.
        if meter.is_due(step):
            log(_figures(setup, folder, meter, step))
        if evaluation.due(step) or watch.due(step):
            with meter.paused():
                log({"step": step, "epoch": step // setup.plan.steps, **evaluation.online()})
                if watch.due(step):
                    collapsed = watch.stops(folder.rows)
        done = bool(collapsed) or final
        ends = done or wishes.stop or wishes.damaged
        if ends or wishes.save or checkpointer.due(step):
            with meter.paused():
                if not checkpointer.save(step, time.monotonic() - begun_at, done, again=not ends):
                    stop_diverged(setup, folder, step)
        if wishes.damaged:
            raise control.too_damaged()
        if ends:
            break
    progress.end()
    if not done:
        raise control.stopped(step, checkpointer.saved)
    return time.monotonic() - begun_at


def _figures(setup: Setup, folder: RunFolder, meter: Meter, step: int) -> MetricsRow:
    """The row of the steps since the last one; a loss that is not finite ends the run."""
    row = meter.row(step)
    if folder.damaged:
        row["damaged"] = len(folder.damaged)
    if not math.isfinite(row["loss"]):
        stop_diverged(setup, folder, step)
    return row


def refuse_unused(setup: Setup) -> None:
    """Among several processes, stop at parameters without a part in the loss: DDP cannot wait."""
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


def stop_diverged(setup: Setup, folder: RunFolder, step: int) -> NoReturn:
    """Write the verdict and raise DivergedError."""
    if folder.writes:
        conclude_diverged(setup, folder, step)
    last = newest_checkpoint(folder.checkpoints)
    raise DivergedError(
        f"the run diverged: its loss or weights were not finite by step {step}",
        "Try a smaller --lr." if last is None else f"The last good checkpoint is {last}.",
    )
