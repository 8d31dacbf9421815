"""Everything that a run decides before its first step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.remote.ahead import limit_cache
from simsiam_zoo.data.resident import SHARE, Resident, expected_bytes, memory_of
from simsiam_zoo.data.shards import Dataset
from simsiam_zoo.data.stream import StreamPlan, StreamSet
from simsiam_zoo.errors import InputError
from simsiam_zoo.model.siamese import Siamese
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import identity, make_lock
from simsiam_zoo.recipe.sizes import data_digest
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.device import Runtime, compile_in_place, open_runtime
from simsiam_zoo.runtime.optim import Schedule
from simsiam_zoo.training.network import (
    build_siamese,
    distributed_model,
    micro_batch,
    recompute_activations,
    synchronise_bn,
    trustworthy,
)
from simsiam_zoo.training.optimizer import make_optimizer
from simsiam_zoo.training.weights import States

_LARGER_PACKED = 4
"""Shards that are larger than the room for their images by this factor are not looked into."""


@dataclass(frozen=True)
class Setup:
    """A run, ready for its first step.

    Attributes:
        sizes: samples and steps of an epoch, as policies are told; a stream's samples are unknown.
        siamese: the network itself.
        model: what a step calls: a batch to (loss, StepOutput).
        bn_batch: images that a BN's statistics are taken over; 0 where the network has none.
        views: who makes them: `worker`, `split` or `device`.
        resident: the images that rest on the device, where it makes all of the views.
    """

    recipe: Recipe
    runtime: Runtime
    dataset: Dataset
    plan: SampleOrder
    sizes: tuple[int | None, int]
    siamese: Siamese
    model: nn.Module
    bn_batch: int
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    lock: dict[str, Any]
    identity: str
    views: str = "worker"
    resident: Resident | None = None
    init: States = field(default_factory=dict, repr=False, compare=False)
    """The weights that the run starts from, by their parts; those of the others are random."""

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.recipe.training.epochs * self.plan.steps


def prepare(recipe: Recipe, init: States | None = None) -> Setup:
    """Open the data and the device, build the network and its optimiser.

    Raises:
        InputError: the data is missing, or does not go with the recipe; the weights do not fit.
        PluginError: a component cannot be used.
        DataError: the data is damaged.
    """
    training, data, init = recipe.training, recipe.data, init or {}
    runtime = open_runtime(training.device, training.precision, training.threads)
    dataset: Dataset = recipe.part("dataset").create(stream=data.stream)
    plan = make_plan(recipe, dataset)
    limit_cache(dataset, plan, int(data.cache_gb * 1e9))
    plan.share(distributed.world_size())  # else each rank would fail on its own, later
    micro_batch(recipe)
    for protocol in recipe.protocols():
        protocol.create()  # what it lacks is told now, not after the training
    sizes = None if data.stream else plan.samples, plan.steps
    siamese = build_siamese(recipe, *sizes, init, runtime)
    if data.stream and siamese.gradient.needs_ids:
        raise InputError(
            f"gradient {recipe.gradient.name} needs the ids of samples, and a stream has none",
            "Read the shards exactly, without data.stream.",
        )
    runtime = trustworthy(recipe, runtime, siamese)
    siamese, bn_batch = synchronise_bn(recipe, runtime, siamese)
    if training.activation_checkpointing:
        recompute_activations(recipe, siamese)
    if training.compile:
        compile_in_place(siamese.compilable_parts(), runtime.device)
    views = choose_views(recipe, runtime.device, dataset)
    machine = {
        "views": views,
        "compile": training.compile,
        "activation_checkpointing": training.activation_checkpointing,
        "world_size": distributed.world_size(),
        "bn_batch": bn_batch,
    }
    parts = {part: siamese.get_submodule(part) for part in PARTS}
    lock = make_lock(recipe, data_digest(dataset), runtime.describe() | machine)
    return Setup(
        recipe=recipe,
        runtime=runtime,
        dataset=dataset,
        plan=plan,
        sizes=sizes,
        siamese=siamese,
        model=distributed_model(siamese, runtime),
        bn_batch=bn_batch,
        optimizer=make_optimizer(recipe.optim, parts, training.batch_size, runtime.device),
        schedule=Schedule(
            training.epochs * plan.steps,
            round(recipe.optim.warmup_epochs * plan.steps),
            recipe.optim.final_lr_scale,
        ),
        scaler=runtime.scaler(),
        lock=lock,
        identity=identity(lock),
        views=views,
        resident=Resident(dataset.train, runtime.device) if views == "device" else None,
        init=init,
    )


def choose_views(recipe: Recipe, device: torch.device, dataset: Dataset) -> str:
    """Who makes views: what the recipe says, or what `auto` means here.

    On a CPU the worker. On CUDA the device, if the images fit in its memory beside the network;
    else worker and device in turn. The worker too where an augmentation applies views itself.

    Raises:
        InputError: what the recipe says cannot be done with this data or augmentation.
    """
    wanted, stream = recipe.data.views, recipe.data.stream
    applies = hasattr(recipe.part("augmentation").create(), "apply")
    if wanted == "worker" or (wanted == "auto" and (device.type != "cuda" or applies or stream)):
        return "worker"
    if applies or stream:
        why = "a stream is read by workers" if stream else "its augmentation applies views itself"
        raise InputError(f"data.views = {wanted!r}: {why}", "Say data.views = 'worker'.")
    remote = dataset.train.cache is not None
    if wanted == "split" or (wanted == "auto" and remote):  # sizes would have to be fetched first
        return "split"
    room = recipe.data.resident
    allowed = SHARE * memory_of(device) if room == "auto" else 1e9 * room
    needed = int(dataset.train.bytes.sum())
    if needed <= _LARGER_PACKED * allowed:
        needed = expected_bytes(dataset.train)
    if needed <= allowed:
        return "device"
    if wanted == "auto":
        return "split"
    raise InputError(
        f"data.views = 'device': the images take about {needed / 1e9:.3g} GB, and"
        f" {allowed / 1e9:.3g} GB of {device} are theirs",
        "Raise data.resident, or say data.views = 'split'.",
    )


def make_plan(recipe: Recipe, dataset: Dataset) -> SampleOrder:
    """Which samples make which step; of a stream, how many steps there are."""
    training, data = recipe.training, recipe.data
    if not data.stream:
        if data.steps_per_epoch:
            raise InputError(
                "data.steps_per_epoch is for streams: an exact epoch is all samples once",
                "Leave it out, or set data.stream.",
            )
        counts = dataset.train.counts
        return SampleOrder(counts, training.seed, training.batch_size, data.lanes, data.window)
    if not isinstance(dataset.train, StreamSet):
        raise InputError(
            f"the dataset {recipe.dataset.name} can be read exactly", "Leave out data.stream."
        )
    dataset.train.seed = training.seed
    return StreamPlan(data.steps_per_epoch, training.batch_size)
