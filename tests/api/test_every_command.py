"""Whatever the command line can do, Python can: each command and each of its options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import click
import pytest

import simsiam_zoo as zoo
from simsiam_zoo.api.features import Page
from simsiam_zoo.api.found import FoundRuns
from simsiam_zoo.api.studies import PlannedStudy
from simsiam_zoo.cli import COMMANDS, root
from simsiam_zoo.cli.plugin import PLUGIN_COMMANDS

MAKE = zoo.Recipe.make
SETTINGS = dict.fromkeys(
    (
        *("backbone", "projector", "predictor", "gradient", "loss", "augmentation", "data"),
        *("stream", "epochs", "batch_size", "lr", "seed", "precision", "device", "compiled"),
        *("assignments", "loggers", "stop_on_collapse"),
    ),
    "settings",
)
"""Options that set a key of the recipe."""

COUNTERPARTS: dict[str, tuple[list[Callable[..., Any]], dict[str, object]]] = {
    "train": ([zoo.train, MAKE], SETTINGS | {"dry_run": zoo.Recipe.to_toml}),
    "ablate": (
        [zoo.ablate],
        {"assignments": "settings", "tuned": "tune", "listed": zoo.list_components}
        | {"dry_run": zoo.plan_study, "detect": PlannedStudy.seeds_for}
        | {"earlier": PlannedStudy.seeds_for},
    ),
    "tune": ([zoo.tune], {}),
    "report": ([zoo.write_report], {}),
    "runs": (
        [zoo.runs],
        {"conditions": "where", "key": "sort", "word": FoundRuns.best}
        | {"out": FoundRuns.write, "watch": FoundRuns.write},
    ),
    "compare": ([zoo.compare], {}),
    "evaluate": ([zoo.evaluate], {}),
    "look": ([zoo.look], {}),
    "embed": ([zoo.embed], {}),
    "pack": ([zoo.pack], {"no_labels": "labels"}),
    "index": ([zoo.index], {}),
    "inspect": ([zoo.inspect], {}),
    "export": ([zoo.export], {}),
    "import": ([zoo.import_checkpoint], {"assignments": "settings", "data": "settings"}),
    "list": ([zoo.list_components], {"of": "kind"}),
    "show": ([zoo.show_component, zoo.explain_key], {}),
    "plugin list": ([zoo.list_plugins], {}),
    "plugin new": ([zoo.new_plugin], {}),
    "plugin check": ([zoo.check_plugin], {}),
    "doctor": ([zoo.doctor], {"no_run": "run"}),
}
"""Command → the functions that do it, and options whose name is another one there."""

EVERYWHERE: dict[str, object] = {"as_json": "", "opened": Page.open, "quiet": "", "plugin": "use"}
"""Results are plain values; `zoo.use_plugin` is for all commands; a function without progress needs
no `quiet`."""


def commands() -> list[str]:
    subcommands = [f"plugin {name}" for name in PLUGIN_COMMANDS]
    return [name for name in COMMANDS if name != "plugin"] + subcommands


def test_no_command_lacks_a_function() -> None:
    assert set(commands()) == COUNTERPARTS.keys(), "a new command needs a function in simsiam_zoo"
    functions = {each for found, _ in COUNTERPARTS.values() for each in found} - {MAKE}
    assert functions <= {getattr(zoo, name) for name in zoo.__all__}


@pytest.mark.parametrize("name", commands())
def test_every_option_can_be_reached(name: str) -> None:
    functions, renamed = COUNTERPARTS[name]
    there = {each for function in functions for each in inspect.signature(function).parameters}
    context: click.Context = root.make_context("simsiam-zoo", name.split(), resilient_parsing=True)
    command: Any = root
    for word in name.split():
        command = command.get_command(context, word)
    for param in command.params:
        if param.name == "debug" or param.name in EVERYWHERE:
            continue
        counterpart = renamed.get(param.name, param.name)
        found = counterpart in there if isinstance(counterpart, str) else callable(counterpart)
        assert found, f"simsiam-zoo {name}: {param.opts[0]} has no counterpart in Python"


@pytest.mark.parametrize("name", zoo.__all__)
def test_every_public_name_says_what_it_is(name: str) -> None:
    value = getattr(zoo, name)
    assert inspect.getdoc(value)
    if inspect.isfunction(value):  # all that a caller may give and gets is typed
        signature = inspect.signature(value)
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(each.annotation is not each.empty for each in signature.parameters.values())
