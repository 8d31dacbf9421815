"""The recipe: the whole configuration of one run, complete and valid before torch is imported.

One spelling everywhere: the TOML key, `--set KEY=VALUE` and the Python attribute are the same
dotted path. `Recipe.make` reads the layers (`layers.py`), asks the catalogue about every component,
and leaves a frozen value in which nothing is implied: defaults are written out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    field_validator,
)

from simsiam_zoo.catalog import PARTS, Catalog, Resolved, catalog
from simsiam_zoo.data.remote.urls import refuse_secrets
from simsiam_zoo.errors import InputError, did_you_mean
from simsiam_zoo.recipe.explain import explain
from simsiam_zoo.recipe.layers import COMPONENTS, Text, literals, read_complete, read_layers

DEFAULT_PRESET = "mnist-5k"

Triple = Annotated[tuple[float, float, float], Strict(False)]
Names = Annotated[tuple[str, ...], Strict(False)]


def _not_negative(value: float | str) -> float | str:
    if not isinstance(value, str) and value < 0:
        raise ValueError("it is 0 or more")
    return value


Count = Annotated[int | Literal["auto"], AfterValidator(_not_negative)]


def operational(default: Any, description: str, **bounds: Any) -> Any:
    """A key that says where or how a run is carried out, not what it computes.

    It is no part of the run's identity and may change on resume.
    """
    return Field(
        default, description=description, json_schema_extra={"operational": True}, **bounds
    )


class Section(BaseModel):
    """A table of the recipe: frozen, and strict about keys and types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Part(BaseModel):
    """A chosen component: its name and all its parameters, as attributes."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def params(self) -> dict[str, Any]:
        """The parameters without the name."""
        return dict(self.model_extra or {})


class Data(Section):
    """How images become batches."""

    image_size: int = Field(32, description="Side of a view in pixels", ge=4, le=4096)
    mean: Triple = Field((0.5, 0.5, 0.5), description="Mean of each channel, of pixels in 0..1")
    std: Triple = Field((0.5, 0.5, 0.5), description="Standard deviation of each channel")
    window: int = Field(16, description="Shards that are shuffled together", ge=1)
    lanes: int = Field(1, description="Streams of shards that a global batch is made of", ge=1)
    workers: Count = operational("auto", "Loader processes; 0: none")
    stream: bool = Field(False, description="Read uncounted shards, with weaker guarantees")
    steps_per_epoch: int = Field(0, description="Length of an epoch of a stream", ge=0)
    cache_gb: float = operational(50.0, "Disk space for remote shards, in GB", gt=0)
    max_damaged: float = operational(1e-3, "Share of images that may be damaged", ge=0, le=1)

    @field_validator("std")
    @classmethod
    def _positive(cls, std: tuple[float, ...]) -> tuple[float, ...]:
        if min(std) <= 0:
            raise ValueError("a standard deviation is greater than 0")
        return std


class Training(Section):
    """How long and on what."""

    epochs: int = Field(14, description="Passes over the training images", ge=1)
    batch_size: int = Field(64, description="Global batch: images per step, all ranks", ge=2)
    seed: int = Field(0, description="Decides initialisation, order and views", ge=0, lt=2**63)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Arithmetic of the forward pass; auto: bf16 where the hardware has it"
    )
    device: str = operational("auto", "auto, cpu, cuda, cuda:N or mps")
    threads: int = operational(0, "CPU threads; 0: one for each core this process may use", ge=0)
    checkpoint_steps: int = operational(0, "Steps between checkpoints; 0: by time alone", ge=0)
    checkpoint_minutes: float = operational(10.0, "Minutes between checkpoints", gt=0)
    stop_on_collapse: bool = Field(False, description="End a run whose collapse is plain")


class PartOptim(Section):
    """What one part has to itself in the optimiser."""

    lr_scale: float = Field(1.0, description="Factor on the lr", ge=0)
    schedule: Literal["inherit", "cosine", "constant"] = Field(
        "inherit", description="Its own schedule, or the run's"
    )
    weight_decay: Annotated[float | Literal["inherit"], AfterValidator(_not_negative)] = Field(
        "inherit", description="Its own weight decay, or the run's"
    )


class Optim(Section):
    """SGD with momentum; weight decay on every parameter, BN and biases too, as in the paper."""

    lr: float = Field(0.05, description="Base lr; the lr used is base x batch_size / 256", gt=0)
    momentum: float = Field(0.9, description="Momentum", ge=0, lt=1)
    weight_decay: float = Field(1e-4, description="Weight decay", ge=0)
    schedule: Literal["cosine", "constant"] = Field("cosine", description="Of the lr, by step")
    warmup_epochs: float = Field(0.0, description="Linear warm-up of the lr from 0", ge=0)
    parts: dict[str, PartOptim] = Field({}, description="Settings of one part's own")

    @field_validator("parts", mode="before")
    @classmethod
    def _known(cls, parts: Any) -> Any:
        for name in parts if isinstance(parts, dict) else ():
            if name not in PARTS:
                hint = did_you_mean(name, PARTS, f"The parts are {', '.join(PARTS)}.")
                raise ValueError(f"there is no part {name!r}. {hint}")
        return parts

    def part(self, name: str) -> PartOptim:
        """The settings of one part, all inherited where the recipe says nothing of it."""
        return self.parts.get(name, PartOptim())


class Evaluation(Section):
    """What is measured at the end, on frozen features."""

    protocols: Names = Field(("knn", "logistic"), description="Protocols, as specs")
    crop: float = Field(1.0, description="Centre crop's share of the resized side", gt=0, le=1)
    baselines: bool = Field(
        True, description="Measure the untrained network and raw pixels beside it"
    )
    rank_samples: int = Field(
        1024, description="Training images on which the effective rank is taken", ge=2
    )


class Logging(Section):
    """What is written down on the way. All of it operational: logging draws nothing."""

    interval_steps: int = operational(10, "Steps between lines of metrics.jsonl", ge=1)
    knn_epochs: Count = operational(
        "auto", "Epochs between kNN checks; 0: none; auto: a tenth of the run"
    )
    loggers: Names = operational((), "Where rows of metrics go besides, as specs")


class Recipe(Section):
    """Everything that decides a run, and how it is carried out."""

    preset: str = Field(DEFAULT_PRESET, description="The preset that the other keys were laid on")
    backbone: Part
    projector: Part
    predictor: Part
    gradient: Part
    loss: Part
    augmentation: Part
    dataset: Part
    data: Data = Data()
    training: Training = Training()
    optim: Optim = Optim()
    evaluation: Evaluation = Evaluation()
    logging: Logging = Logging()

    @classmethod
    def make(
        cls,
        preset: str | None = None,
        file: Path | str | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Self:
        """Read preset < file < settings, and resolve every component.

        Args:
            preset: a preset's name; the file's own, or `mnist-5k`, where it is None.
            file: a TOML recipe.
            settings: dotted paths and values, e.g. `{"training.epochs": 3, "predictor": "none",
                "predictor.hidden_dim": 64}`; a part's own path takes a spec.

        Raises:
            InputError: an unknown name or key, a wrong type, a value out of range, no such file.
            PluginError: a preset's file cannot be read.
        """
        return cls._complete(read_layers(catalog(), preset, file, settings or {}, DEFAULT_PRESET))

    @classmethod
    def of_run(cls, file: Path, settings: Mapping[str, object] | None = None) -> Self:
        """The recipe that a run left behind, with what `settings` change.

        It is complete by itself: its preset may have changed since, or be gone.

        Raises:
            InputError: as for `make`.
        """
        return cls._complete(read_complete(file, settings or {}))

    @classmethod
    def _complete(cls, tree: dict[str, Any]) -> Self:
        known = catalog()
        for kind in COMPONENTS:
            table = tree.get(kind)
            if not isinstance(table, dict) or "name" not in table:
                raise InputError(f"the recipe names no {kind}", f'Say [{kind}] name = "...".')
            tree[kind] = _resolved_table(known, kind, table)
            for value in tree[kind].values():
                if isinstance(value, str):  # recipes are written down, printed and passed on
                    refuse_secrets(value)
        for section in cls.model_fields.keys() - set(COMPONENTS):
            tree[section] = literals(tree[section]) if section in tree else {}
        try:
            recipe = cls.model_validate(tree)
        except ValidationError as error:
            raise explain(error, cls) from None
        recipe.protocols()  # a wrong spec fails now, not after the training
        recipe.loggers()
        return recipe

    def part(self, kind: str) -> Resolved:
        """The component chosen for `kind`, as the catalogue has it."""
        chosen: Part = getattr(self, kind)
        return catalog().resolve(kind, chosen.name, chosen.params)

    def protocols(self) -> list[Resolved]:
        """The evaluation protocols, in the recipe's order."""
        return [catalog().resolve("protocol", spec) for spec in self.evaluation.protocols]

    def loggers(self) -> list[Resolved]:
        """The loggers, in the recipe's order."""
        return [catalog().resolve("logger", spec) for spec in self.logging.loggers]

    def run_name(self) -> str:
        """A name for the run's folder: the preset, the parts that differ from it, the seed."""
        plain = type(self).make(self.preset)
        parts = [
            f"{kind}-{getattr(self, kind).name}".replace("/", "-").replace(":", "-")
            for kind in COMPONENTS
            if getattr(self, kind).name != getattr(plain, kind).name
        ]
        return "-".join([self.preset.replace("/", "-"), *parts, f"seed{self.training.seed}"])

    def to_dict(self) -> dict[str, Any]:
        """Plain nested values, every key written out; what `to_toml` writes."""
        return self.model_dump(mode="json")

    def to_toml(self) -> str:
        """TOML that gives this very recipe when it is read back."""
        return tomli_w.dumps(self.to_dict())

    def identity_dict(self) -> dict[str, Any]:
        """`to_dict` without what is operational, and without the preset's name."""
        tree = self.to_dict()
        del tree["preset"]  # two presets that say the same are the same
        for kind in COMPONENTS:
            del tree[kind]  # the lock holds them, with their canonical ids and versions
        for path in operational_paths(type(self)):
            section, key = path.split(".")
            del tree[section][key]
        return {name: section for name, section in tree.items() if section}


def recipe_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every fixed key: its dotted path and its pydantic field. Component tables have their own."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from recipe_keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def operational_paths(model: type[BaseModel] = Recipe) -> list[str]:
    """The dotted paths of the keys that are no part of a run's identity."""
    return [
        path
        for path, field in recipe_keys(model)
        if (field.json_schema_extra or {}).get("operational")
    ]


def may_change_on_resume(recipe: Recipe, path: str) -> bool:
    """Whether the key at `path`, fixed or a component's parameter, is operational."""
    section, _, key = path.partition(".")
    if section not in COMPONENTS:
        return path in operational_paths()
    params = {param.name: param for param in recipe.part(section).entry.component.params}
    return key in params and params[key].operational


def _resolved_table(known: Catalog, kind: str, table: dict[str, Any]) -> dict[str, Any]:
    name = table["name"]
    if not isinstance(name, str):
        raise InputError(f"{kind}.name is a component's name, not {name!r}")
    types = {param.name: param for param in known.resolve(kind, name).entry.component.params}
    params = {
        key: types[key].parse(str(value), f"{kind}.{key}")
        if isinstance(value, Text) and key in types
        else value
        for key, value in table.items()
        if key != "name"
    }
    resolved = known.resolve(kind, name, params)
    given = {key: value for key, value in resolved.params.items() if value is not None}
    return {"name": resolved.name, **given}
