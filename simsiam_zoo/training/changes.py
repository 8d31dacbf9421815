"""What a recipe's changes do to a run: new parts in the network, another optimiser, other batches.

A change takes effect before the first step of its epoch. What it does not renew goes on as it was:
weights, running statistics, the momentum of each parameter that is still trained, the course of the
lr. A run that is resumed repeats the changes and then loads what was saved.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.data.batches import LoadedBatch
from simsiam_zoo.data.order import derive_key
from simsiam_zoo.model.build import renew
from simsiam_zoo.model.siamese import TrainStep
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.device import compile_in_place
from simsiam_zoo.training.batches import in_blocks, train_loader
from simsiam_zoo.training.optimizer import make_optimizer
from simsiam_zoo.training.setup import (
    Setup,
    bring_to,
    distributed_model,
    has_sync_bn,
    make_schedule,
)

_CHANGE = 1 << 40  # beyond all ranks: the draws of a change are not those of a step


def run_batches(
    setup: Setup,
    step: int,
    waited_for: Callable[[Iterator[LoadedBatch]], Iterator[LoadedBatch]],
    say: Callable[[str], None],
) -> Iterator[LoadedBatch]:
    """The batches from `step` to the run's end; a change takes effect before its first batch.

    `waited_for` passes loaded batches on and takes the time; `say` is told of a change.
    """
    while step < setup.steps:
        if step == setup.end:
            begin_stage(setup)
            say(f"from epoch {setup.stage.begin} on: {setup.stage.change}")
        loaded = train_loader(setup).batches(*divmod(step, setup.plan.steps))
        yield from in_blocks(setup, waited_for(loaded), step)
        step = setup.end


def begin_stage(setup: Setup) -> None:
    """Put the next change of the recipe into force, on all ranks alike."""
    setup.changes += 1
    recipe, change, siamese = setup.stage.recipe, setup.stage.change, setup.siamese
    assert change is not None
    torch.manual_seed(derive_key(recipe.training.seed, setup.begin, _CHANGE))
    samples, steps_per_epoch = setup.sizes
    renew(
        siamese,
        {kind: recipe.part(kind) for kind in change.renewed},
        lambda part: _fitted(setup, part),
        dataset_size=samples,
        steps_per_epoch=steps_per_epoch,
        steps=setup.steps,
    )
    for head in setup.stage.frozen:
        siamese.get_submodule(head).requires_grad_(False)
    if recipe.training.compile:
        renewed = [siamese.get_submodule(kind) for kind in change.renewed]
        parts = [part for part in siamese.compilable_parts() if part in renewed]
        compile_in_place(parts, setup.runtime.device)
    _change_optimizer(setup)
    if distributed.is_distributed():
        setup.model = TrainStep(siamese)
        gc.collect()  # the old exchange of gradients would still hear of each of them
        setup.model = distributed_model(siamese, setup.runtime)


def _fitted(setup: Setup, part: nn.Module) -> nn.Module:
    """A new part as those of `prepare` are: on the device, with BN synchronised where theirs is."""
    if has_sync_bn(setup.recipe, setup.runtime):
        part = convert_sync_batchnorm(part)  # type: ignore[no-untyped-call]
    bring_to(setup.runtime, part)
    return part


def _change_optimizer(setup: Setup) -> None:
    """An optimiser of the settings that are in force, with what the old one had of each weight."""
    recipe, before = setup.stage.recipe, setup.optimizer.state
    parts = {part: setup.siamese.get_submodule(part) for part in PARTS}
    batch_size, device = recipe.training.batch_size, setup.runtime.device
    setup.optimizer = make_optimizer(recipe.optim, parts, batch_size, device)
    for group in setup.optimizer.param_groups:
        for parameter in group["params"]:
            if parameter in before:
                setup.optimizer.state[parameter] = before[parameter]
    setup.schedule = make_schedule(recipe, setup.plan.steps)
