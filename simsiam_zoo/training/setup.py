"""Everything that a run decides before its first step: data, device, network, optimiser."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from timm.layers.norm_act import convert_sync_batchnorm  # torch's misses timm's own BN
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.data.order import SampleOrder
from simsiam_zoo.data.remote.ahead import limit_cache
from simsiam_zoo.data.resident import Resident
from simsiam_zoo.data.shards import Dataset
from simsiam_zoo.data.stream import StreamPlan, StreamSet
from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.protocol import is_collective
from simsiam_zoo.model.build import build
from simsiam_zoo.model.siamese import Siamese, TrainStep
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import identity, make_lock
from simsiam_zoo.recipe.recipe import Stage
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.convolutions import as_products, untrustworthy_convolutions
from simsiam_zoo.runtime.device import Runtime, compile_in_place, fastest_threads, open_runtime
from simsiam_zoo.runtime.machine import stated_threads
from simsiam_zoo.runtime.optim import Schedule
from simsiam_zoo.training.optimizer import make_optimizer
from simsiam_zoo.training.recompute import recompute_activations
from simsiam_zoo.training.views import check_views, choose_views, stated_sizes_of, view_sizes_of
from simsiam_zoo.training.weights import States, load_initial_weights


@dataclass
class Setup:
    """A run, ready for its first step; a change of its recipe (`changes.py`) changes it in place.

    Attributes:
        sizes: samples and steps of an epoch, as policies are told; a stream's samples are unknown.
        siamese: the network itself.
        model: what a step calls: a batch to (loss, StepOutput).
        bn_batch: images that a BN's statistics are taken over; 0 where the network has none.
        views: who makes them: `worker`, `split` or `device`.
        resident: the images that rest on the device, where it makes all of the views.
        changes: how many of the recipe's changes are in force.
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
    changes: int = 0

    @cached_property
    def stages(self) -> list[Stage]:
        """What the recipe has from its beginning and from each of its changes on."""
        return self.recipe.stages()

    @property
    def stage(self) -> Stage:
        """What is in force now."""
        return self.stages[self.changes]

    @property
    def begin(self) -> int:
        """The step from which on it is."""
        return self.stage.begin * self.plan.steps

    @property
    def end(self) -> int:
        """The step before which something changes, or the run ends."""
        return self.stage.end * self.plan.steps

    @property
    def view_sizes(self) -> tuple[int, ...]:
        """The side of each view of an image in pixels, as things stand now."""
        return view_sizes_of(self.stage.recipe, self.siamese)

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
    dataset = recipe.open_data()
    check_views(recipe)
    plan = make_plan(recipe, dataset)
    limit_cache(dataset, data.lanes, data.window, int(data.cache_gb * 1e9))
    plan.share(distributed.world_size())  # else each rank would fail on its own, later
    micro_batch(recipe)
    check_protocols(recipe)
    sizes = None if data.stream else plan.samples, plan.steps
    for stage in recipe.stages()[1:]:  # what cannot be built is told now, not at the change
        refuse_batches(stage.recipe, build_siamese(stage.recipe, *sizes, {}))
    siamese = build_siamese(recipe, *sizes, init, runtime)
    refuse_batches(recipe, siamese)
    runtime = choose_threads(recipe, trustworthy(recipe, runtime, siamese), siamese)
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
    lock = make_lock(recipe, dataset.digest, runtime.describe() | machine)
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
        schedule=make_schedule(recipe, plan.steps),
        scaler=runtime.scaler(),
        lock=lock,
        identity=identity(lock),
        views=views,
        resident=Resident(dataset.train, runtime.device) if views == "device" else None,
        init=init,
    )


def check_protocols(recipe: Recipe) -> None:
    """Create the protocols: what one lacks is told now, not after the training.

    InputError: one that trains for many epochs is to be measured on the way.
    """
    for protocol in recipe.protocols():
        protocol.create()
    for protocol in recipe.online_protocols():
        if is_collective(protocol.create()):
            raise InputError(
                f"evaluation.online: {protocol.name} trains for many epochs",
                "Name it in evaluation.protocols, which are measured at the end.",
            )


def refuse_batches(recipe: Recipe, siamese: Siamese) -> None:
    """Stop where a policy compares another number of views than the augmentation gives, or has to
    know which image is which, and the run reads a stream.
    """
    view_sizes_of(recipe, siamese)
    if recipe.data.stream and siamese.gradient.needs_ids:
        raise InputError(
            f"gradient {recipe.gradient.name} needs the ids of samples, and a stream has none",
            "Read the shards exactly, without data.stream.",
        )


def make_schedule(recipe: Recipe, steps: int) -> Schedule:
    """The lr over a run whose epochs have that many steps."""
    optim, whole = recipe.optim, recipe.training.epochs * steps
    return Schedule(whole, round(optim.warmup_epochs * steps), optim.final_lr_scale)


def choose_threads(recipe: Recipe, runtime: Runtime, siamese: Siamese) -> Runtime:
    """With the CPU threads that are fastest for this network here, where nobody named a number."""
    training, size, channels = recipe.training, recipe.data.image_size, recipe.data.channels
    named = training.threads or stated_threads() or distributed.world_size() > 1
    if named or runtime.device.type != "cpu" or runtime.threads == 1:
        return runtime
    network = copy.deepcopy(nn.Sequential(siamese.backbone, siamese.projector))

    def step() -> None:
        count = min(training.batch_size, 64)
        images = torch.randn(count, channels, size, size, dtype=runtime.dtype)
        with runtime.autocast():
            loss = network(images.contiguous(memory_format=torch.channels_last)).sum()
        loss.backward()

    with torch.random.fork_rng(devices=[]):
        return replace(runtime, threads=fastest_threads(step, runtime.threads))


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


def build_siamese(
    recipe: Recipe,
    samples: int | None,
    steps_per_epoch: int | None,
    init: States,
    runtime: Runtime | None = None,
) -> Siamese:
    """The network as a run begins with it, channels last; weights are drawn on the CPU.

    Args:
        samples, steps_per_epoch: for the policies that ask; None where unknown.
        init: weights in place of random ones, by their parts.
        runtime: the device to bring it to; None: it stays on the CPU in float32.
    """
    torch.manual_seed(recipe.training.seed)
    epochs = recipe.training.epochs
    siamese = build(
        {kind: recipe.part(kind) for kind in PARTS},
        image_size=recipe.data.image_size,
        dataset_size=samples,
        steps_per_epoch=steps_per_epoch,
        steps=None if steps_per_epoch is None else epochs * steps_per_epoch,
        fill=lambda built: load_initial_weights(built, init),
        channels=recipe.data.channels,
        view_sizes=stated_sizes_of(recipe),
    )
    if runtime is None:
        return siamese.to(memory_format=torch.channels_last)
    bring_to(runtime, siamese)
    return siamese


def bring_to(runtime: Runtime, module: nn.Module) -> None:
    """Have the module on the run's device, channels last, of its precision."""
    module.to(memory_format=torch.channels_last)
    if runtime.device.type == "cpu":
        as_products(module)
    module.to(runtime.device, runtime.dtype)


def micro_batch(recipe: Recipe) -> int:
    """Images of a micro-batch on one process; InputError: the batch cannot be divided so."""
    training, world = recipe.training, distributed.world_size()
    size, rest = divmod(training.batch_size, world * training.accumulate)
    if rest:
        raise InputError(
            f"training.batch_size = {training.batch_size} cannot be divided into"
            f" training.accumulate = {training.accumulate} micro-batches"
            f"{f' on each of {world} processes' if world > 1 else ''}",
            "Use a batch size that is a multiple of them.",
        )
    return size


def synchronise_bn(recipe: Recipe, runtime: Runtime, siamese: Siamese) -> tuple[Siamese, int]:
    """The network with BN synchronised where that exists, and its BN batch.

    InputError: a rank's share is too small for BN on its own.
    """
    if not any(isinstance(module, _BatchNorm) for module in siamese.modules()):
        return siamese, 0
    training, world, size = recipe.training, distributed.world_size(), micro_batch(recipe)
    if has_sync_bn(recipe, runtime):
        synchronised: Siamese = convert_sync_batchnorm(siamese)  # type: ignore[no-untyped-call]
        return synchronised, size * world
    if size < 2:
        of = f"{training.accumulate} micro-batches" if training.accumulate > 1 else ""
        of += f"{' on each of ' if of else ''}{world} processes" if world > 1 or not of else ""
        raise InputError(
            f"training.batch_size = {training.batch_size} leaves {size} image for each of {of},"
            " and BN needs two",
            "Use a larger batch, or fewer processes.",
        )
    return siamese, size


def has_sync_bn(recipe: Recipe, runtime: Runtime) -> bool:
    """Whether BN's statistics are over the images of all ranks, which torch can do on CUDA."""
    several = distributed.world_size() > 1
    return several and runtime.device.type == "cuda" and recipe.training.sync_bn


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
    """The runtime; fp32 where bf16 would give wrong gradients; InputError if it was asked for."""
    if (runtime.device.type, runtime.precision) != ("cpu", "bf16"):
        return runtime
    sizes = {recipe.data.image_size, *stated_sizes_of(recipe)}
    found = untrustworthy_convolutions(
        siamese.backbone, *sorted(sizes), channels=recipe.data.channels
    )
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
