"""The recipe: the whole configuration of one run, complete and valid before torch is imported.

One spelling everywhere: the TOML key, `--set KEY=VALUE` and the Python attribute are the same
dotted path. `Recipe.make` reads the layers (`layers.py`), asks the catalogue about every component,
and leaves a frozen value in which nothing is implied: defaults are written out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import tomli_w
from pydantic import BaseModel, Field

from simsiam_zoo.catalog import PARTS, Resolved, catalog
from simsiam_zoo.data.remote.urls import is_url, redacted
from simsiam_zoo.errors import InputError, PluginError, located
from simsiam_zoo.recipe.auto import choose, take_out
from simsiam_zoo.recipe.changes import SUBSTITUTED, Change, read_change
from simsiam_zoo.recipe.explain import validated
from simsiam_zoo.recipe.layers import (
    COMPONENTS,
    Layer,
    Tree,
    literals,
    merge,
    normal,
    read_complete,
    read_layers,
    resolved_table,
    stated_in,
)
from simsiam_zoo.recipe.naming import data_word, run_name
from simsiam_zoo.recipe.sections import (
    ChosenComponent,
    Data,
    Evaluation,
    Logging,
    Optim,
    PartOptim,
    Section,
    Training,
)
from simsiam_zoo.runtime.progress import tell

if TYPE_CHECKING:
    from simsiam_zoo.data.shards import Dataset

DEFAULT_PRESET = "mnist-5k"


class Recipe(Section):
    """Everything that decides a run, and how it is carried out."""

    preset: str = Field(DEFAULT_PRESET, description="The preset that the other keys were laid on")
    backbone: ChosenComponent
    projector: ChosenComponent
    predictor: ChosenComponent
    gradient: ChosenComponent
    loss: ChosenComponent
    augmentation: ChosenComponent
    dataset: ChosenComponent
    data: Data = Data()
    training: Training = Training()
    optim: Optim = Optim()
    evaluation: Evaluation = Evaluation()
    logging: Logging = Logging()
    change: tuple[Change, ...] = Field((), description="What is substituted from an epoch on")

    @classmethod
    def make(
        cls,
        preset: str | None = None,
        file: Path | str | None = None,
        settings: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None,
        *,
        measure: bool = True,
    ) -> Self:
        """Read preset < file < settings, and resolve every component.

        Args:
            preset: a preset's name; the file's own, or `mnist-5k`, where it is None.
            file: a TOML recipe.
            settings: dotted paths and values, e.g. `{"training.epochs": 3, "predictor": "none",
                "predictor.hidden_dim": 64}`; a part's own path takes a spec. Of several, each is a
                layer on the one before.
            measure: choose by the data what is `auto` (`auto.py`); without, keys have their
                defaults there, and no data is opened.

        Raises:
            InputError: an unknown name or key, a wrong type, a value out of range, no such file;
                the file or preset that states it is named. Or no data to measure.
            DataError: the data that is measured is damaged.
            PluginError: a preset's file cannot be read.
        """
        layers = [settings] if isinstance(settings, Mapping) else settings or ()
        read = read_layers(catalog(), preset, file, layers, DEFAULT_PRESET)
        return cls._complete(read, measure)

    @classmethod
    def of_run(cls, file: Path, settings: Mapping[str, object] | None = None) -> Self:
        """The recipe that a run left behind, with what `settings` change. Raises as `make` does.

        It is complete by itself: its preset may have changed since, or be gone.
        """
        return cls._complete(read_complete(file, settings or {}))

    @classmethod
    def _complete(cls, layers: Sequence[Layer], measure: bool = True) -> Self:
        tree: Tree = reduce(merge, (layer.tree for layer in layers), {})
        stated = literals(tree.pop("change", []))
        wanted = take_out(tree)
        recipe = cls._valid(tree, lambda path: stated_in(layers, path))
        if wanted and measure:
            recipe = recipe._measured(wanted)
        recipe.protocols()  # a wrong spec fails now, not after the training
        recipe.online_protocols()
        recipe.loggers()
        if not stated:
            return recipe
        with located(stated_in(layers, ["change"])):
            return recipe.model_copy(update={"change": recipe._complete_changes(stated)})

    @classmethod
    def _valid(cls, tree: Tree, where: Callable[[list[str]], str]) -> Self:
        """The recipe of plain values; `where` says which file states the key at a path."""
        known = catalog()
        for kind in COMPONENTS:
            table = tree.get(kind)
            if not isinstance(table, dict) or "name" not in table:
                raise InputError(f"the recipe names no {kind}", f'Say [{kind}] name = "...".')
            with located(where([kind])):
                tree[kind] = resolved_table(known, kind, table)
        for section in cls.model_fields.keys() - {*COMPONENTS, "change"}:
            tree[section] = literals(tree[section]) if section in tree else {}
        return validated(cls, tree, where)

    def _measured(self, wanted: Sequence[str]) -> Self:
        """This recipe with what the data says of the keys that are `auto`."""
        if self.data.stream:
            wanted = [path for path in wanted if path != "data.validation"]  # a stream has none
            if not wanted:
                return self
            raise InputError(
                f"{wanted[0]} = auto is measured on counted images, and a stream's are not",
                f"State {', '.join(wanted)}, or name a preset that does; or read the shards"
                " exactly, without data.stream.",
            )
        if is_url(source := str(self.dataset.params.get("path", ""))):
            tell(f"reading of {redacted(source)}: what is auto is measured on its images")
        dataset = self._created(stream=False).of_channels(self.data.channels)
        share = self.data.validation
        values = choose(wanted, dataset, share, lambda share: self._divided(dataset, share))
        return self._valid(merge(self.to_dict(), normal(values)), lambda _: "")

    def _complete_changes(self, stated: Any) -> tuple[Change, ...]:
        """The changes of this recipe, each valid on what those before it leave in force."""
        if not isinstance(stated, list):
            raise InputError(f"change is a list of tables, [[change]] in a file, not {stated!r}")
        keys = [path for path, _ in recipe_keys(type(self))]
        now, found = self, list[Change]()
        for number, table in enumerate(stated):
            with located(f"change.{number}"):
                after = found[-1].epoch if found else 0
                tree = read_change(table, after, self.training.epochs, keys)
                over = {key: tree[key] for key in tree.keys() & {*SUBSTITUTED, "optim"}}
                now = self._valid(merge(now.to_dict(), over), lambda _: "")
                chosen = {kind: getattr(now, kind) for kind in SUBSTITUTED if kind in tree}
                found.append(validated(Change, {**tree, **chosen}, whole="a change"))
        return tuple(found)

    def stages(self) -> list[Stage]:
        """What is in force from which epoch to which; one stage where nothing changes."""
        now = self.model_copy(update={"change": ()})
        ends = [*(change.epoch for change in self.change), self.training.epochs]
        found = [Stage(0, ends[0], now)]
        for change, end in zip(self.change, ends[1:], strict=True):
            now = now.model_copy(update=change.over(now.optim))
            frozen = (*found[-1].frozen, *(change.freeze or ()))
            found.append(Stage(change.epoch, end, now, change, tuple(dict.fromkeys(frozen))))
        return found

    def marks(self) -> list[tuple[int, str]]:
        """(epoch, what changes then), for charts."""
        return [(change.epoch, str(change)) for change in self.change]

    def part(self, kind: str) -> Resolved:
        """The component chosen for `kind`, as the catalogue has it."""
        chosen: ChosenComponent = getattr(self, kind)
        return catalog().resolve(kind, chosen.name, chosen.params)

    def protocols(self) -> list[Resolved]:
        """The evaluation protocols, in the recipe's order."""
        return [catalog().resolve("protocol", spec) for spec in self.evaluation.protocols]

    def online_protocols(self) -> list[Resolved]:
        """The protocols that a run is measured by on the way."""
        return [catalog().resolve("protocol", spec) for spec in self.evaluation.online]

    def loggers(self) -> list[Resolved]:
        """The loggers, in the recipe's order."""
        return [catalog().resolve("logger", spec) for spec in self.logging.loggers]

    def run_name(self) -> str:
        """A name for the run's folder: the preset, the data and parts that differ, the seed."""
        return run_name(self, type(self).make(self.preset, measure=False))

    def data_word(self) -> str:
        """What to call the data where it is not the preset's own, else nothing."""
        return data_word(self, type(self).make(self.preset, measure=False))

    def open_data(self, *, exact: bool = False) -> Dataset:
        """The data, with the images that `data.validation` holds out in place of the test images.

        `exact`: readable by id, of a run that reads a stream too. Raises InputError where it is not
        there or cannot be divided so, DataError where it is damaged.
        """
        return self._divided(self._created(self.data.stream and not exact), self.data.validation)

    def data_at_hand(self) -> Dataset | None:
        """As `open_data`, but None where the data is not at hand."""
        try:
            dataset = self._created(self.data.stream)
        except InputError:
            return None
        return self._divided(dataset, self.data.validation)

    def _created(self, stream: bool) -> Dataset:
        from simsiam_zoo.data.shards import Dataset

        if not isinstance(made := self.part("dataset").create(stream=stream), Dataset):
            raise PluginError(f"dataset {self.dataset.name} gave {made!r:.80}, which is no Dataset")
        return made

    def _divided(self, dataset: Dataset, share: float) -> Dataset:
        from simsiam_zoo.data.inspection import refuse_other_channels

        data, dataset = self.data, dataset.of_channels(self.data.channels)
        refuse_other_channels(dataset.train)
        if not share:
            return dataset
        from simsiam_zoo.data.remote.ahead import limit_cache
        from simsiam_zoo.data.validation import hold_out

        # The labels of remote shards are in them: they are fetched now, within the bound.
        limit_cache(dataset, data.lanes, data.window, int(data.cache_gb * 1e9))
        return hold_out(dataset, share).of_channels(data.channels)

    def sizes(self, dataset: Dataset | None = None) -> tuple[int | None, int | None]:
        """(training images, steps an epoch); None for what is not known without the data.

        `dataset` is the data, where it is open already. Raises InputError where the recipe's batch
        does not go with it.
        """
        from simsiam_zoo.data.order import SampleOrder  # which needs numpy

        data, training = self.data, self.training
        if data.stream:
            return None, data.steps_per_epoch or None
        dataset = dataset or self.data_at_hand()
        if dataset is None:
            return None, None
        counts = dataset.train.counts
        plan = SampleOrder(counts, training.seed, training.batch_size, data.lanes, data.window)
        return plan.samples, plan.steps

    def to_dict(self) -> dict[str, Any]:
        """Plain nested values, every key written out but those of other optimisers."""
        tree = self.model_dump(mode="json", exclude_none=True)
        if not self.change:
            del tree["change"]
        return tree

    def to_toml(self) -> str:
        """TOML that gives this very recipe when it is read back."""
        return tomli_w.dumps(self.to_dict())

    def identity_dict(self) -> dict[str, Any]:
        """The fixed keys that decide what the run computes, what parts inherit written out.

        The components are not among them: the lock holds those, with ids and versions.
        """
        tree = self.to_dict()
        del tree["preset"]  # two presets that say the same are the same
        del tree["evaluation"]["protocols"]
        for kind in COMPONENTS:
            del tree[kind]
        for path in operational_paths(type(self)):
            section, key = path.split(".")
            del tree[section][key]
        tree["optim"] = _optim_facts(self.optim)
        for facts, stage in zip(tree.get("change", ()), self.stages()[1:], strict=True):
            for kind in SUBSTITUTED:
                facts.pop(kind, None)  # the lock has those too
            facts["optim"] = _optim_facts(stage.recipe.optim)
        return {name: section for name, section in tree.items() if section}


class Stage(NamedTuple):
    """What is in force from the start of epoch `begin` to that of epoch `end`.

    `recipe` has no changes of its own; `change` is that which began it; the parameters of the heads
    in `frozen` are fixed.
    """

    begin: int
    end: int
    recipe: Recipe
    change: Change | None = None
    frozen: tuple[str, ...] = ()


def _optim_facts(optim: Optim) -> dict[str, Any]:
    """The optimiser's keys, with what parts inherit written out."""
    facts = optim.model_dump(mode="json", exclude_none=True)
    for inherited in PartOptim.model_fields.keys() & Optim.model_fields.keys():
        del facts[inherited]
    facts["parts"] = {part: optim.part(part)._asdict() for part in PARTS}
    return facts


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
