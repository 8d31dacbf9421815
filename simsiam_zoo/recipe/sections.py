"""The tables of a recipe: every fixed key, its default, its bounds and its meaning."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, field_validator, model_validator

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.errors import did_you_mean
from simsiam_zoo.recipe.layers import OPTIMIZER_KEYS, OPTIMIZERS

PerChannel = Annotated[tuple[float, ...], Strict(False)]
Positive = Annotated[float, Field(gt=0)]
Names = Annotated[tuple[str, ...], Strict(False)]


Count = Annotated[int, Field(ge=0)] | Literal["auto"]
Inheritable = Annotated[float, Field(ge=0)] | Literal["inherit"]
Beta = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[tuple[Beta, Beta], Strict(False)]


def key(default: Any, description: str, **more: Any) -> Any:
    """A key that decides what a run computes: its default, its meaning and its bounds."""
    return Field(default, description=description, **more)


def operational(default: Any, description: str, **bounds: Any) -> Any:
    """A key that says where or how a run is carried out: no part of the run's identity."""
    return key(default, description, json_schema_extra={"operational": True}, **bounds)


class Section(BaseModel):
    """A table of the recipe: frozen, and strict about keys and types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ChosenComponent(BaseModel):
    """A chosen component: its name and all its parameters, as attributes."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def params(self) -> dict[str, Any]:
        """The parameters without the name."""
        return dict(self.model_extra or {})


class Data(Section):
    """How images become batches."""

    image_size: int = key(32, "Side of a view in pixels; auto: by the images' own", ge=4, le=4096)
    channels: int = key(3, "Channels of an image, 8 or 16 bits each", ge=1, le=16)
    mean: PerChannel = key(
        (0.5, 0.5, 0.5),
        "Mean of each channel, of pixels in 0..1; one value is for all; auto: measured",
    )
    std: Annotated[tuple[Positive, ...], Strict(False)] = key(
        (0.5, 0.5, 0.5), "Standard deviation of each channel; auto: measured"
    )
    window: int = key(16, "Shards that are shuffled together", ge=1)
    lanes: int = key(1, "Streams of shards that a global batch is made of", ge=1)
    views: Literal["auto", "worker", "split", "device"] = Field(
        "auto", description="Who makes views: a loader's worker, the device, or both in turn"
    )
    resident: Annotated[float, Field(ge=0)] | Literal["auto"] = operational(
        "auto", "GB of images that may rest on the device; auto: a quarter of its memory"
    )
    workers: Count = operational("auto", "Loader processes; 0: none")
    validation: float = key(
        0.0,
        "Share of the training images held out, and measured on for test images; auto: 0.2 of"
        " labelled images that have no test images",
        ge=0,
        lt=1,
    )
    stream: bool = key(False, "Read uncounted shards, with weaker guarantees")
    steps_per_epoch: int = key(0, "Length of an epoch of a stream", ge=0)
    cache_gb: float = operational(50.0, "Disk space for remote shards, in GB", gt=0)
    max_damaged: float = operational(1e-3, "Share of images that may be damaged", ge=0, le=1)

    @model_validator(mode="after")
    def _of_each_channel(self) -> Self:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) == 1 or name not in self.model_fields_set:
                values = values[:1]
                object.__setattr__(self, name, values * self.channels)
            elif len(values) != self.channels:
                raise ValueError(
                    f"{name} has {len(values)} values, and channels is {self.channels}. Give"
                    f" data.{name} a number for each channel, one for all, [0.5], or auto"
                )
        return self

    @model_validator(mode="after")
    def _can_hold_out(self) -> Self:
        if self.stream and self.validation:
            raise ValueError(
                "validation holds out images that are counted, and those of a stream are not. Leave"
                " out data.validation, or read the shards exactly, without data.stream"
            )
        return self


class Training(Section):
    """How long and on what."""

    epochs: int = key(14, "Passes over the training images; auto: about 1,000 steps", ge=1)
    batch_size: int = key(64, "Global batch: images per step, all ranks; auto: 64 at most", ge=2)
    seed: int = key(0, "Decides initialisation, order and views", ge=0, lt=2**63)
    init: str = key("", "Digest of the weights to start from; --init and import write it")
    precision: Literal["auto", "fp64", "fp32", "bf16", "fp16"] = key(
        "auto", "Arithmetic of the forward pass; auto: bf16 where the hardware has it"
    )
    device: str = operational("auto", "auto, cpu, cuda, cuda:N or mps")
    compile: bool = operational(
        False, "torch.compile backbone, projector and predictor; a resume is not bit-identical then"
    )
    threads: int = operational(0, "CPU threads; 0: OMP_NUM_THREADS, else the fastest", ge=0)
    checkpoint_steps: int = operational(0, "Steps between checkpoints; 0: by time alone", ge=0)
    checkpoint_minutes: float = operational(10.0, "Minutes between checkpoints", gt=0)
    accumulate: int = key(1, "Micro-batches that make a step; BN sees one at a time", ge=1)
    activation_checkpointing: bool = operational(
        False, "Recompute the backbone's activations in the backward pass: less memory, more time"
    )
    until: int = operational(0, "Stop after this epoch, to go on by --resume; 0: at the end", ge=0)
    stop_on_collapse: bool = key(False, "End a run whose collapse is plain")
    sync_bn: bool = key(True, "Synchronise BN over the ranks, where CUDA has it")

    @field_validator("device")
    @classmethod
    def _known_device(cls, name: str) -> str:
        if not re.fullmatch(r"auto|(cpu|mps)(:0)?|cuda(:\d+)?", name):
            raise ValueError("it is auto, cpu, cuda, cuda:N or mps")
        return name


class PartOptim(Section):
    """What one part has to itself in the optimiser; `inherit`: what the run has."""

    lr_scale: float = key(1.0, "Factor on the lr", ge=0)
    schedule: Literal["inherit", "cosine", "constant"] = "inherit"
    weight_decay: Inheritable = "inherit"
    exclude_norm_and_bias: bool | Literal["inherit"] = "inherit"
    norm_and_bias_lr_scale: Inheritable = "inherit"


class Settings(NamedTuple):
    """The settings of one part, with what it inherits filled in."""

    lr_scale: float
    schedule: Literal["cosine", "constant"]
    weight_decay: float
    exclude_norm_and_bias: bool
    norm_and_bias_lr_scale: float


class Optim(Section):
    """The optimiser: by default SGD with momentum, with weight decay on every parameter, norms and
    biases too, as in the paper.

    A key that the chosen optimiser has no use for is None here, and is not written down.
    """

    name: Literal["sgd", "lars", "adamw"] = key("sgd", "sgd, lars or adamw")
    lr: float = key(0.05, "Base lr; the lr used is base x batch_size / 256", gt=0)
    momentum: float | None = key(None, "Of sgd and lars (0.9)", ge=0, lt=1)
    betas: Betas | None = key(None, "Of adamw: decay of its two running means ([0.9, 0.999])")
    trust_coefficient: float | None = key(
        None, "Of lars: a layer's step relative to its weights (0.001)", gt=0
    )
    lr_in_momentum: bool | None = key(
        None, "Of lars: the lr scales what the momentum sums, or else the sum (true)"
    )
    weight_decay: float = key(1e-4, "Weight decay", ge=0)
    exclude_norm_and_bias: bool = key(
        False, "No weight decay, and with lars no adaptation, of norm scales and of biases"
    )
    norm_and_bias_lr_scale: float = key(1.0, "Factor on the lr of norm scales and of biases", ge=0)
    schedule: Literal["cosine", "constant"] = key("cosine", "Of the lr, by step")
    final_lr_scale: float = key(0.0, "Where the cosine ends, as a share of the peak lr", ge=0, le=1)
    warmup_epochs: float = key(0.0, "Length of the lr's linear warm-up", ge=0)
    clip_norm: float = key(0.0, "The gradients' norm is clipped to this; 0: it is not", ge=0)
    parts: dict[str, PartOptim] = key({}, "Settings of one part's own")

    @model_validator(mode="before")
    @classmethod
    def _own_keys(cls, table: Any) -> Any:
        """Write out the defaults of the optimiser's own keys; refuse those of the others."""
        if not isinstance(table, dict):
            return table
        given = {k: v for k, v in table.items() if not (k in OPTIMIZER_KEYS and v is None)}
        name = given.get("name", cls.model_fields["name"].default)
        if not isinstance(name, str) or name not in OPTIMIZERS:
            return given  # the field's own check has the better message
        own = OPTIMIZERS[name]
        for key in sorted(OPTIMIZER_KEYS & given.keys() - own.keys()):
            users = [other for other, keys in OPTIMIZERS.items() if key in keys]
            raise ValueError(
                f"{name} has no {key}: that is a key of {' and '.join(users)}. Leave optim.{key}"
                " out, or choose another optim.name"
            )
        return {**own, **given}

    @field_validator("parts", mode="before")
    @classmethod
    def _known(cls, parts: Any) -> Any:
        for name in parts if isinstance(parts, dict) else ():
            if name not in PARTS:
                hint = did_you_mean(name, PARTS, f"The parts are {', '.join(PARTS)}.")
                raise ValueError(f"there is no part {name!r}. {hint}")
        return parts

    def own_keys(self) -> dict[str, Any]:
        """The keys that this optimiser has to itself, and their values."""
        return {key: getattr(self, key) for key in OPTIMIZERS[self.name]}

    def part(self, name: str) -> Settings:
        """The settings of one part, with what it inherits filled in."""
        own = dict(self.parts.get(name, PartOptim()))
        return Settings(
            **{key: getattr(self, key) if own[key] == "inherit" else own[key] for key in own}
        )


class Evaluation(Section):
    """What is measured on frozen features, at the end and on the way."""

    protocols: Names = key(("knn", "logistic"), "Protocols, as specs")
    crop: float = key(1.0, "Centre crop's share of the resized side", gt=0, le=1)
    baselines: bool = key(True, "Measure the untrained network and raw pixels beside it")
    rank_samples: int = key(1024, "Training images on which the effective rank is taken", ge=2)
    online: Names = operational(("knn:k=20",), "Protocols that are measured on the way, as specs")
    online_epochs: Count = operational(
        "auto", "Epochs from one such measurement to the next; 0: none; auto: a tenth of the run"
    )
    online_images: int = operational(
        1024, "Training images that they may use at most, and half as many test images", ge=2
    )


class Logging(Section):
    """What is written down on the way. All of it operational: logging draws nothing."""

    interval_steps: int = operational(10, "Steps between lines of metrics.jsonl", ge=1)
    loggers: Names = operational((), "Where rows of metrics go besides, as specs")
