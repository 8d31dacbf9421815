"""The study file: what to substitute in which base, read and checked before anything runs.

docs/studies.md has an example. An ablation states one of three things: a `part` (any path of the
recipe) that is removed or replaced, one arm for each value of `with`; keys to `set` together, one
arm; or a `grid` of values by key, crossed. What it says `on` a preset takes the place of what it
says in general.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from simsiam_zoo.catalog import catalog
from simsiam_zoo.errors import InputError, did_you_mean, located
from simsiam_zoo.recipe.explain import validated
from simsiam_zoo.recipe.layers import (
    COMPONENTS,
    Tree,
    flat,
    merge,
    normal,
    read_component_file,
    read_toml,
)
from simsiam_zoo.recipe.recipe import DEFAULT_PRESET

VerdictName = Literal[
    "learned", "collapsed", "diverged", "no-gain", "worse", "no-collapse-seen", "undetermined"
]

REMOVED = "none"
"""What stands in the place of a part that is removed."""

DECIDED = {"training.seed": "seeds", "training.threads": "threads"}
"""Keys of a recipe that the study decides for all arms, and its own key for it."""

_TUNING = {
    **{key: f"the study says {own}" for key, own in DECIDED.items()},
    "training.epochs": "its share is tune.length",
    "data.validation": "it is tune.validation",
    "evaluation.protocols": "the one that chooses is tune.metric",
}
"""Keys that tuning decides, and what says them."""


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False
    )


def _listed(value: Any) -> Any:
    """One thing or several, as several."""
    return value if isinstance(value, list | tuple) else (value,)


Listed = BeforeValidator(_listed)
Verdicts = Annotated[tuple[VerdictName, ...], Listed]


def _different(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ValueError("seeds are different whole numbers from 0, one at least")
    return seeds


Seeds = Annotated[tuple[int, ...], AfterValidator(_different)]


class Ablation(_Strict):
    """One `[[ablation]]`: what to substitute, and what is expected of it."""

    part: str | None = Field(None, description="A part, or any path of the recipe")
    action: Literal["remove", "replace"] | None = Field(None, description="remove or replace")
    with_: Annotated[tuple[Any, ...], Listed] = Field(
        (), alias="with", description="Names, specs, tables or values"
    )
    set: Tree = Field({}, description="Keys that change together, in one arm")
    grid: dict[str, tuple[Any, ...]] = Field({}, description="Values by key, crossed")
    label: Annotated[tuple[str, ...], Listed] = Field((), description="What the arms are called")
    expect: Verdicts = Field((), description="Verdicts that would do")
    paper: Annotated[tuple[float, ...], Listed] = Field(
        (), description="The paper's top-1 of each arm, in %"
    )
    skip: str = Field("", description="Why it is not run; said on a preset, most often")
    on: dict[str, Tree] = Field({}, description="What differs on a preset, by its name")

    @field_validator("grid", mode="before")
    @classmethod
    def _by_path(cls, value: Any) -> Any:
        return flat(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        stated = [bool(self.part), bool(flat(self.set)), bool(self.grid)]
        if sum(stated) != 1:
            raise ValueError("state one of part, set and grid")
        if (self.action is not None) != bool(self.part):
            raise ValueError('a part goes with action = "remove" or "replace", and only a part')
        if (self.action == "replace") != bool(self.with_):
            raise ValueError('action = "replace" goes with what it is replaced with: `with`')
        if self.action == "remove" and self.part not in COMPONENTS:
            hint = did_you_mean(str(self.part), COMPONENTS, f"They are {', '.join(COMPONENTS)}.")
            raise ValueError(f"only a component can be removed, and {self.part} is none. {hint}")
        if any(not values for values in self.grid.values()):
            raise ValueError("every key of a grid has values")
        for path in (path for arm in self.substitutions() for path in arm):
            if path in DECIDED:
                raise ValueError(f"{path} is the same in all arms: say {DECIDED[path]} = ...")
        arms = len(self.substitutions())
        for name in ("paper", "label"):
            if (given := len(getattr(self, name))) not in (0, arms):
                raise ValueError(f"{name} has {given} entries for {arms} arms")
        return self

    def substitutions(self) -> list[Tree]:
        """Dotted path → value, for each arm."""
        if self.part is not None:
            values = self.with_ if self.action == "replace" else (REMOVED,)
            return [flat({self.part: value}) for value in values]
        if self.set:
            return [flat(self.set)]
        return crossed(self.grid)


class Tune(_Strict):
    """`[tune]`: what is chosen for every arm, the base too, each with the same budget.

    Every value of the `grid`, crossed, or `points` draws from `ranges`, is trained on a part of the
    training images and measured on the rest of them; the best is the arm's. No test image is read.
    """

    grid: dict[str, tuple[Any, ...]] = Field({}, description="Values by key, crossed")
    ranges: dict[str, tuple[float, float]] = Field(
        {}, description="Lowest and highest by key, above 0; drawn evenly by their logarithm"
    )
    points: int = Field(8, description="Draws from the ranges", ge=1)
    beside: tuple[Tree, ...] = Field((), description="Candidates beside those of grid or ranges")
    seeds: Seeds = Field((100,), description="Other ones than are reported")
    metric: str = Field("knn", description="The protocol that chooses")
    validation: float = Field(
        0.2, description="The share of the training images that it measures on", gt=0, lt=1
    )
    length: float = Field(0.5, description="Of the arm's epochs", gt=0, le=1)
    halving: int = Field(
        0,
        description="Times that the worse half of the candidates stops on the way",
        ge=0,
        le=8,
    )
    stop_on_collapse: bool = Field(False, description="End a run that has collapsed")

    @field_validator("grid", "ranges", mode="before")
    @classmethod
    def _by_path(cls, value: Any) -> Any:
        return flat(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _something_to_choose_from(self) -> Self:
        if bool(self.grid) == bool(self.ranges):
            raise ValueError("state one of grid and ranges")
        if any(
            len(set(map(str, values))) < len(values) or not values for values in self.grid.values()
        ):
            raise ValueError("every key of the grid has values, each once")
        if any(not 0 < low < high for low, high in self.ranges.values()):
            raise ValueError("a range has its lowest value first, and it is above 0")
        if any(set(each) != set(self.keys) for each in self.beside):
            raise ValueError(
                f"a candidate beside them has {', '.join(self.keys)}, and no other key"
            )
        for path in self.keys:
            if path in _TUNING:
                raise ValueError(f"{path} is not tuned: {_TUNING[path]}")
        return self

    @property
    def keys(self) -> list[str]:
        """What is tuned."""
        return [*self.grid, *self.ranges]

    def rungs(self, epochs: int) -> list[int]:
        """The epochs after which the worse half stops; each is twice as far as the one before."""
        first = max(1, epochs // 2**self.halving)
        return [first << i for i in range(self.halving) if first << i < epochs]

    def share(self, candidates: int, epochs: int) -> float:
        """The share of all candidates' epochs that halving leaves to be run."""
        ran, before, left = 0, 0, candidates
        for rung in [*self.rungs(epochs), epochs]:
            ran += left * (rung - before)
            before, left = rung, -(-left // 2)
        return ran / (candidates * epochs)

    def candidates(self) -> list[Tree]:
        """Dotted path → value of each candidate; the same ones for every arm."""
        if self.grid:
            return [*self.beside, *crossed(self.grid)]
        draws = np.random.default_rng(0).random((self.points, len(self.ranges)))
        drawn = [
            {
                key: float(f"{low * (high / low) ** share:.3g}")
                for (key, (low, high)), share in zip(self.ranges.items(), row, strict=True)
            }
            for row in draws.tolist()
        ]
        return [*self.beside, *drawn]


class Study(_Strict):
    """A whole study."""

    title: str = Field("", description="What the report is headed by")
    description: str = Field("", description="A paragraph under it")
    base: Tree = Field({}, description="The recipe that is taken apart")
    label: str = Field("base", description="What the base is called", min_length=1)
    seeds: Seeds = Field((0,), description="Each arm is trained with each of them")
    metrics: tuple[str, ...] = Field((), description="Protocols; by default the preset's own")
    threads: int = Field(1, description="CPU threads of a run, whatever else runs", ge=1)
    expect: Verdicts = Field(("learned",), description="Of the base")
    paper: float | None = Field(None, description="The paper's top-1 of the base, in %")
    tune: Tune | None = Field(None, description="What is chosen for every arm alike")
    ablation: tuple[Ablation, ...] = Field((), description="What is substituted")

    @model_validator(mode="after")
    def _tuned_apart(self) -> Self:
        if self.tune is None:
            return self
        if set(self.tune.seeds) & set(self.seeds):
            raise ValueError("tune.seeds are other ones than the seeds that are reported")
        arms = (arm for each in self.ablation for arm in each.substitutions())
        for path, key in itertools.product((path for arm in arms for path in arm), self.tune.keys):
            if f"{path}.".startswith(f"{key}."):  # a component that is chosen drops its parameters
                raise ValueError(f"{key} is tuned for every arm, so that no arm substitutes {path}")
        return self

    def changed(self, changes: Tree) -> Self:
        """The study with some of its keys changed. Raises InputError."""
        return validated(type(self), {**dict(self), **changes}, "the study", "it")

    def decided(self, key: str) -> tuple[int, ...]:
        """What the study decides by a key of `DECIDED`'s values, `seeds` say."""
        return self.seeds if key == "seeds" else (self.threads,)

    def on_base(self, settings: Mapping[str, object]) -> Tree:
        """The base with settings laid on it, as a layer of a recipe is: arms lie on both."""
        layers = (normal(each, "the study's base") for each in (self.base, settings))
        return {**merge(*layers), "preset": self.preset}

    @property
    def preset(self) -> str:
        """The preset below the base."""
        return str(self.base.get("preset", DEFAULT_PRESET))


def read_study(
    name: str, preset: str | None = None, otherwise: Callable[[], str] = lambda: DEFAULT_PRESET
) -> tuple[str, Study]:
    """What to call a study, and the study: a component, or a TOML file.

    `preset` takes the place of the base's; `otherwise` gives that of a component without a base.

    Raises:
        InputError: there is none of that name, it is no TOML, or not a study.
        PluginError: a plugin's study cannot be read.
    """
    path = Path(name)
    # `distribution/name` has a slash too.
    if name.endswith(".toml") or ("/" in name and path.is_file()):
        hint = "`simsiam-zoo ablate --list` shows the studies that come by name."
        tree = read_toml(path, "the study", hint)
        return path.stem, parse_study(tree, f"the study {path}", preset, path.parent)
    tree = read_component_file(catalog().resolve("study", name))
    if preset is None and "base" not in tree:
        preset = otherwise()
    return name.replace("/", "-"), parse_study(tree, f"study {name}", preset)


def parse_study(tree: Tree, where: str, preset: str | None = None, folder: Path = Path()) -> Study:
    """A study from plain values. Raises InputError where a key or a value is wrong.

    `where` names it in errors; `preset` takes the place of the base's; a base that is a file is
    found from `folder`.
    """
    tree = dict(tree)
    base = tree.get("base", {})
    if isinstance(base, str):
        path, hint = folder / base, f'A preset is base = {{ preset = "{base}" }}.'
        if path.is_dir():
            hint = f'The recipe of a run is base = "{base}/recipe.toml".'
        base = read_toml(path, "the recipe", hint)
    if not isinstance(base, dict):
        raise InputError(f"{where}: base is a recipe's table, or a recipe's file, not {base!r}")
    tree["base"] = base if preset is None else {**base, "preset": preset}
    name = str(tree["base"].get("preset", DEFAULT_PRESET))
    if isinstance(tree.get("ablation"), list):
        tree["ablation"] = [
            _on_preset(each, name, f"{where}: ablation.{i}")
            for i, each in enumerate(tree["ablation"])
        ]
    return validated(Study, tree, where, "it")


def _on_preset(ablation: Any, preset: str, where: str) -> Any:
    """The ablation as it is on this preset; what it says on others is checked as well."""
    stated = ablation.get("on") if isinstance(ablation, dict) else None
    if not isinstance(stated, dict):
        return ablation  # the field's own check has the better message
    chosen = ablation
    for name, keys in stated.items():
        with located(f"{where}.on"):
            there = catalog().resolve("preset", name)
        if not isinstance(keys, dict):
            continue
        whole = {key: value for key, value in ablation.items() if key != "on"} | keys
        validated(Ablation, whole, f"{where}.on.{name}", "it")
        if there.id == catalog().resolve("preset", preset).id:
            chosen = whole
    return chosen


def crossed(grid: Mapping[str, tuple[Any, ...]]) -> list[Tree]:
    """Every combination of a grid's values, by key."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
