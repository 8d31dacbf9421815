"""The training loop: a step, what is done around it, and what may stop it before its end."""

from __future__ import annotations

import itertools
import math
import shlex
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from simsiam_zoo.data.batches import Damage
from simsiam_zoo.errors import DataError, PluginError, StoppedError
from simsiam_zoo.metrics import Latest
from simsiam_zoo.model.siamese import Batch, StepOutput
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.progress import Progress, StopRequest
from simsiam_zoo.training.batches import micro_batches, step_seed, to_device
from simsiam_zoo.training.changes import run_batches
from simsiam_zoo.training.conclude import CollapseWatch, stop_diverged
from simsiam_zoo.training.measuring import RunEvaluation
from simsiam_zoo.training.meter import Meter
from simsiam_zoo.training.optimizer import clip_gradients, scaled_step
from simsiam_zoo.training.run_folder import MetricsRow, RunFolder, resume_command
from simsiam_zoo.training.setup import Setup
from simsiam_zoo.training.state import Checkpointer, TrainState

LEAST_DAMAGED = 16
"""Damaged images that end no run, however small its data, unless `data.max_damaged` is 0."""


def take_step(
    setup: Setup, batch: Batch, step: int, want_norm: bool
) -> tuple[Tensor, StepOutput, Tensor | None]:
    """Step number `step` (from 0) of the optimiser, on this rank's share of a batch, on the device.

    The share passes the network in `training.accumulate` micro-batches, whose mean loss is
    minimised; the ranks exchange gradients once, with the last one.

    Returns:
        The loss, the gradient policy's output for all of the share, and the gradient's norm before
        it was clipped, if it is wanted: nothing was waited for.
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
            if not loss.requires_grad:
                raise PluginError("the loss depends on no parameter that is trained")
            scaler.scale(loss / len(pieces)).backward()
        losses.append(loss.detach())
        outputs.append(output)
    if step == setup.begin:
        refuse_unused(setup)
    norm, limit = None, setup.stage.recipe.optim.clip_norm
    if want_norm or limit:
        scaler.unscale_(optimizer)  # the optimiser's step does it not again
        norm = clip_gradients(optimizer, limit)
    output = StepOutput.joined(outputs)
    if scaled_step(scaler, optimizer, ask=bool(siamese.parts_after_step())):
        siamese.after_step(output, step, setup.steps)
    return torch.stack(losses).mean(), output, norm if want_norm else None


class Control(StopRequest):
    """Says after each step whether a run goes on; a context manager around its steps and end."""

    def __init__(self, setup: Setup, folder: RunFolder, progress: Progress) -> None:
        super().__init__()
        self._setup, self._folder, self._progress = setup, folder, progress
        self._until = setup.recipe.training.until * setup.plan.steps
        self._go_on = f"Go on with: {resume_command(folder.path)}"

    def after_step(
        self, step: int, damaged: tuple[Damage, ...], overdue: bool
    ) -> tuple[bool, bool, bool]:
        """What the ranks agree on after step number `step`; waits for no device.

        `damaged` are images of its batch. A checkpoint is `overdue` by the first rank's clock.

        Returns:
            Whether a stop was requested, a checkpoint has to be saved, and more images are damaged
            than the recipe puts up with.
        """
        new = [each for each in damaged if each.id not in self._folder.damaged]
        overdue = overdue and distributed.rank() == 0
        asked = self.requested or step + 1 == self._until
        stop, save, more = map(bool, distributed.agree(asked, overdue, len(new)))
        return stop, save, more and self._list_damaged(step, new)

    def _list_damaged(self, step: int, new: list[Damage]) -> bool:
        """List what any rank found; whether it is more than the recipe puts up with."""
        for damage in itertools.chain(*distributed.collect(new)):
            if not self._folder.damaged:
                self._progress.say(
                    f"warning: {damage.name}: {damage.reason}; replaced by the next good image of"
                    " its batch, as any other will be (listed in"
                    f" {self._folder.path / 'damaged.jsonl'})"
                )
            self._folder.list_damaged(step, damage)
        share, found = self._setup.recipe.data.max_damaged, len(self._folder.damaged)
        return found > (max(LEAST_DAMAGED, share * self._setup.plan.samples) if share else 0)

    def too_damaged(self) -> DataError:
        """The error of a run that met too many damaged images."""
        folder, listed = self._folder.path, list(self._folder.damaged.values())
        first = "".join(f"\n    {row['sample']}: {row['damage']}" for row in listed[:3])
        return DataError(
            f"{len(listed)} of {self._setup.plan.samples} training images are damaged so far, more"
            f" than data.max_damaged = {self._setup.recipe.data.max_damaged} puts up with. The"
            f" first:{first}",
            f"Restore the shards ({folder / 'damaged.jsonl'} lists all), or raise"
            f" data.max_damaged; --resume {shlex.quote(str(folder))} goes on.",
        )

    def stopped(self, step: int, saved: int | None) -> StoppedError:
        """The error of a run that stopped on request; `saved`: the step of a checkpoint of here."""
        where = "which is saved" if saved is None else f"saved at step {saved}"
        return StoppedError(f"stopped at step {step} of {self._setup.steps}; {where}", self._go_on)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """While the trained run is measured, by all ranks: a request ends it, as StoppedError."""
        try:
            with self.interrupting():
                yield
        except KeyboardInterrupt:
            if not self.requested:
                raise
            raise StoppedError(
                "stopped while the run was evaluated; its training is saved", self._go_on
            ) from None


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
    for loaded in run_batches(setup, step, meter.waited_for, progress.say):
        checkpointer.note(step, time.monotonic() - begun_at)
        batch, row_follows = to_device(setup, loaded), meter.is_due(step + 1)
        loss, output, norm = take_step(setup, batch, step, want_norm=row_follows)
        meter.add(loss, output.embeddings, norm)
        stop, save, damaged = control.after_step(step, loaded.damaged, checkpointer.overdue())
        step += 1

        # Only from here on does the device get waited for, and only now and then.
        if row_follows:
            log(_figures(setup, folder, meter, step))
        if evaluation.due(step) or watch.due(step):
            with meter.paused():
                log({"step": step, "epoch": step // setup.plan.steps, **evaluation.online()})
                collapsed = watch.stops(folder.rows)
        done = bool(collapsed) or step == setup.steps
        ends = done or stop or damaged
        if ends or save or checkpointer.due(step):
            with meter.paused():
                if not checkpointer.save(step, time.monotonic() - begun_at, done, again=not ends):
                    stop_diverged(setup, folder, step)
        if damaged:
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
