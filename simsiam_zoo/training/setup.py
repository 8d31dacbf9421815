"""Everything that a run decides before its first step."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers.norm_act import convert_sync_batchnorm  # torch's misses timm's own BN
from torch import nn

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.data.batches import LoadedBatch
from simsiam_zoo.data.loader import TrainLoader, in_flight, normalize_pixels
from simsiam_zoo.data.order import SampleOrder, derive_key
from simsiam_zoo.data.processes import default_workers
from simsiam_zoo.data.remote.ahead import limit_cache
from simsiam_zoo.data.shards import Dataset
from simsiam_zoo.data.stream import StreamPlan, StreamSet
from simsiam_zoo.errors import InputError
from simsiam_zoo.model.build import Parts, build
from simsiam_zoo.model.siamese import Batch, Siamese, TrainStep
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import identity, make_lock
from simsiam_zoo.recipe.sizes import data_digest
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.convolutions import as_products, untrustworthy_convolutions
from simsiam_zoo.runtime.device import Runtime, compile_in_place, open_runtime
from simsiam_zoo.runtime.optim import REFERENCE_BATCH, Group, Schedule, make_optimizer
from simsiam_zoo.training.start import States


@dataclass(frozen=True)
class Setup:
    """A run, ready for its first step.

    Attributes:
        siamese: the network itself.
        model: what a step calls: a batch to (loss, StepOutput).
        bn_batch: images that a BN's statistics are taken over; 0 where the network has none.
    """

    recipe: Recipe
    runtime: Runtime
    dataset: Dataset
    plan: SampleOrder
    siamese: Siamese
    model: nn.Module
    bn_batch: int
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    lock: dict[str, Any]
    identity: str
    start: States = field(default_factory=dict, repr=False, compare=False)
    """The weights that the run started from, by their parts; those of the others were random."""

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.recipe.training.epochs * self.plan.steps


def prepare(recipe: Recipe) -> Setup:
    """Open the data and the device, build the network and its optimiser.

    Raises:
        InputError: the data is missing, or does not go with the recipe.
        PluginError: a component cannot be used.
        DataError: the data is damaged.
    """
    training, data, optim = recipe.training, recipe.data, recipe.optim
    runtime = open_runtime(training.device, training.precision, training.threads)
    dataset: Dataset = recipe.part("dataset").create(stream=data.stream)
    plan = make_plan(recipe, dataset)
    workers = default_workers(runtime.device.type) if data.workers == "auto" else data.workers
    limit_cache(dataset, plan, int(data.cache_gb * 1e9), in_flight(workers))
    plan.share(distributed.world_size())  # else each rank would fail on its own, later
    for protocol in recipe.protocols():
        protocol.create()  # what it lacks is told now, not after the training
    siamese = build_siamese(recipe, plan, runtime)
    if data.stream and siamese.gradient.needs_ids:
        raise InputError(
            f"gradient {recipe.gradient.name} needs the ids of samples, and a stream has none",
            "Read the shards exactly, without data.stream.",
        )
    runtime = trustworthy(recipe, runtime, siamese)
    siamese, bn_batch = synchronise_bn(recipe, runtime, siamese)
    if training.compile:
        compile_in_place(siamese.compilable_parts(), runtime.device)
    peak = optim.lr * training.batch_size / REFERENCE_BATCH
    groups = {}
    for part in PARTS:
        own = optim.part(part)
        groups[part] = Group(
            lr=peak * own.lr_scale,
            weight_decay=own.weight_decay,
            schedule=own.schedule,
            exclude_norm_and_bias=own.exclude_norm_and_bias,
            norm_and_bias_lr_scale=own.norm_and_bias_lr_scale,
        )
    machine = {
        "compile": training.compile,
        "world_size": distributed.world_size(),
        "bn_batch": bn_batch,
    }
    lock = make_lock(recipe, data_digest(dataset), runtime.describe() | machine)
    return Setup(
        recipe=recipe,
        runtime=runtime,
        dataset=dataset,
        plan=plan,
        siamese=siamese,
        model=distributed_model(siamese, runtime),
        bn_batch=bn_batch,
        optimizer=make_optimizer(
            optim.name,
            {part: siamese.get_submodule(part) for part in PARTS},
            groups,
            optim.own_keys(),
            runtime.device,
        ),
        schedule=Schedule(
            training.epochs * plan.steps,
            round(optim.warmup_epochs * plan.steps),
            optim.final_lr_scale,
        ),
        scaler=runtime.scaler(),
        lock=lock,
        identity=identity(lock),
    )


def make_plan(recipe: Recipe, dataset: Dataset) -> SampleOrder:
    """Which samples make which step; of a stream, how many steps there are.

    Raises:
        InputError: the data does not go with the recipe.
    """
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


def build_siamese(recipe: Recipe, plan: SampleOrder, runtime: Runtime) -> Siamese:
    """The network at its initialisation, on the run's device, channels last.

    It is the same for the same recipe, whenever it is built: weights are drawn on the CPU.
    """
    torch.manual_seed(recipe.training.seed)
    siamese = build(
        Parts(**{kind: recipe.part(kind) for kind in PARTS}),
        image_size=recipe.data.image_size,
        dataset_size=None if recipe.data.stream else plan.samples,
        steps_per_epoch=plan.steps,
        steps=recipe.training.epochs * plan.steps,
    )
    siamese.to(memory_format=torch.channels_last)
    if runtime.device.type == "cpu":
        as_products(siamese)
    return siamese.to(runtime.device, runtime.dtype)


def synchronise_bn(recipe: Recipe, runtime: Runtime, siamese: Siamese) -> tuple[Siamese, int]:
    """The network with BN synchronised over the ranks where that exists, and its BN batch.

    Raises:
        InputError: a rank's share is too small for BN on its own.
    """
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in siamese.modules()):
        return siamese, 0
    world = distributed.world_size()
    if world > 1 and runtime.device.type == "cuda" and recipe.training.sync_bn:
        synchronised: Siamese = convert_sync_batchnorm(siamese)  # type: ignore[no-untyped-call]
        return synchronised, recipe.training.batch_size
    share = recipe.training.batch_size // world
    if share < 2:
        raise InputError(
            f"training.batch_size = {recipe.training.batch_size} leaves {share} image for each of"
            f" {world} processes, and BN needs two",
            "Use a larger batch, or fewer processes.",
        )
    return siamese, share


def distributed_model(siamese: Siamese, runtime: Runtime) -> nn.Module:
    """What a step calls: `Siamese.step`, within DDP where there are several processes.

    Buffers stay each rank's own, as a rank's statistics are; the first rank's are saved.
    """
    if not distributed.is_distributed():
        return TrainStep(siamese)
    with warnings.catch_warnings():
        # Its successor sends buffers around at the start, those that are a rank's own among them.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return nn.parallel.DistributedDataParallel(
            TrainStep(siamese),
            device_ids=[runtime.device] if runtime.device.type == "cuda" else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )


def trustworthy(recipe: Recipe, runtime: Runtime, siamese: Siamese) -> Runtime:
    """The runtime, in fp32 where bf16 would compute wrong gradients.

    Raises:
        InputError: the recipe asks for bf16 by name.
    """
    if (runtime.device.type, runtime.precision) != ("cpu", "bf16"):
        return runtime
    found = untrustworthy_convolutions(siamese.backbone, recipe.data.image_size)
    if not found:
        return runtime
    if recipe.training.precision == "auto":
        return replace(runtime, precision="fp32")
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    raise InputError(
        f"in bf16 the CPU computes wrong gradients for {recipe.backbone.name}'s convolution"
        f" {found[0]}{more}: the padding is wider than the image that is left",
        "Use --precision fp32 or auto, or a larger data.image_size.",
    )


def train_loader(setup: Setup, workers: int | None = None) -> TrainLoader:
    """The batches of the whole run, from any step on; by `workers` processes, or the recipe's."""
    data, device = setup.recipe.data, setup.runtime.device.type
    if workers is None:
        workers = default_workers(device) if data.workers == "auto" else data.workers
    return TrainLoader(
        setup.dataset.train,
        setup.plan,
        setup.recipe.part("augmentation").create(),
        image_size=data.image_size,
        views=setup.siamese.gradient.views,
        seed=setup.recipe.training.seed,
        epochs=setup.recipe.training.epochs,
        workers=workers,
        rank=distributed.rank(),
        world=distributed.world_size(),
        pin_memory=device == "cuda",
    )


def step_seed(setup: Setup, step: int) -> int:
    """What torch's generators start a step with on this rank (dropout draws from them)."""
    return derive_key(setup.recipe.training.seed, step, distributed.rank())


def to_device(setup: Setup, loaded: LoadedBatch) -> Batch:
    """A loaded batch as the model takes it: normalised, channels last, on the run's device."""
    data, device, dtype = setup.recipe.data, setup.runtime.device, setup.runtime.dtype
    return Batch(
        views=[normalize_pixels(view, data.mean, data.std, device, dtype) for view in loaded.views],
        ids=None if data.stream else loaded.ids.to(device, non_blocking=True),
        labels=loaded.labels,
    )


def monitor_ids(setup: Setup) -> NDArray[np.int64]:
    """The training images that the monitor looks at."""
    return evenly(len(setup.dataset.train), setup.recipe.evaluation.rank_samples)


def evenly(total: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the ids 0 to total - 1, evenly spaced."""
    return np.linspace(0, total - 1, min(total, most)).round().astype(np.int64)
