"""A component under test, what a check is, and the one test that pytest runs of all of them.

A check is what the contract asks of a component, and how to meet it.
"""

from __future__ import annotations

import importlib
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from simsiam_zoo.catalog import (
    HOST,
    Catalog,
    CatalogEntry,
    Plugin,
    Resolved,
    canonical_name,
    catalog,
)
from simsiam_zoo.errors import InputError, ZooError, describe_error, did_you_mean

PLUGIN = "plugin"
"""In place of a kind: the checks of a plugin's light module itself."""

_SMALL = "test_resnet"  # stands for a whole family where it is there; else its first member does
_MODULES = ("plugin_checks", "part_checks", "data_checks", "run_checks")  # in their order
_FAILED: set[str] = set()  # labels of components that have failed a check on which others rest


@dataclass(frozen=True)
class ComponentUnderTest:
    """One component as a run would have it, or a plugin itself, of the kind `PLUGIN`.

    Args:
        label: kind and name, for people.
        plugin: who supplies it.
        chosen: the component; None where the plugin itself is under test.
    """

    kind: str
    label: str
    plugin: Plugin
    chosen: Resolved | None = None

    @property
    def resolved(self) -> Resolved:
        """The component."""
        assert self.chosen is not None
        return self.chosen

    def create_or_skip(self) -> Any:
        """The component; Inapplicable, with the reason, where it cannot be had here so."""
        try:
            return self.resolved.create()
        except ZooError as error:
            if error.__cause__ is not None:  # the factory raised something else
                raise
            # `--spec` of `plugin check` is `--zoo-spec` of pytest
            raise Inapplicable(f"{error.what} (--spec gives it other parameters)") from None


def components_of(distribution: str, specs: Sequence[str] = ()) -> Iterator[ComponentUnderTest]:
    """The plugins of a distribution, then each component, in the catalogue's order.

    `specs` say how a component is to be checked where its defaults do not do: `KIND:SPEC`. Raises
    InputError where the distribution has no plugin here, or a spec means nothing.
    """
    known, name = catalog(), canonical_name(distribution)
    plugins = [plugin for plugin in known.plugins if plugin.distribution == name]
    if not plugins:
        installed = sorted({plugin.distribution for plugin in known.plugins})
        hint = did_you_mean(name, installed, f"Plugins are supplied by {', '.join(installed)}.")
        if (folder := Path(distribution)).joinpath("pyproject.toml").is_file():
            way = f"pip install -e {shlex.quote(os.path.join(os.curdir, folder))}"
            hint = f"Install it first, then name its distribution: {way}"
        elif folder.suffix == ".py":
            hint = "A file is checked once it is a package: simsiam-zoo plugin new."
        raise InputError(f"there is no plugin of {distribution} here", hint)
    given = [_resolve(known, text, name) for text in specs]
    for plugin in plugins:
        yield ComponentUnderTest(PLUGIN, f"plugin {plugin.name}", plugin)
    for entry in known.entries():
        if entry.distribution == name:
            own = [chosen for chosen in given if chosen.entry.component is entry.component]
            chosen = own[0] if own else known.resolve(entry.kind, _default_spec(known, entry))
            label = f"{entry.kind} {chosen.name}"
            yield ComponentUnderTest(entry.kind, label, entry.plugin, chosen)


def _resolve(known: Catalog, text: str, distribution: str) -> Resolved:
    kind, colon, spec = text.partition(":")
    if not colon:
        raise InputError(f"what is to be checked is KIND:SPEC, not {text!r}")
    full = distribution == HOST or "/" in spec.partition(":")[0]
    return known.resolve(kind, spec if full else f"{distribution}/{spec}")


def _default_spec(known: Catalog, entry: CatalogEntry) -> str:
    if not entry.is_family:
        return entry.full
    members = known.members(entry)
    if not members:
        raise InputError(f"the family {entry.full}: has no names")
    return f"{entry.full}:{_SMALL if _SMALL in members else members[0]}"


class Broken(AssertionError):
    """A component does not do what the contract asks."""


class Inapplicable(Exception):
    """A check means nothing for this component, or needs what is not here."""


@dataclass(frozen=True)
class ConformanceCheck:
    """One question to the components of some kinds.

    Args:
        name, kinds: a word or two; whom it is asked.
        asks, way_out: what the contract asks, and how to meet it: "The way out: ...".
        run: raises Broken (or anything) where the component does not do it.
        slow: it takes seconds, and `--zoo-fast` leaves it out.
        basic: others rest on it; a component that fails it is not asked the rest.
    """

    name: str
    kinds: tuple[str, ...]
    asks: str
    way_out: str
    run: Callable[[ComponentUnderTest], None]
    slow: bool = False
    basic: bool = False

    def on(self, tested: ComponentUnderTest) -> None:
        """Ask a component. Raises Inapplicable, or Broken with what came, what the contract asks
        and how to meet it."""
        try:
            self.run(tested)
        except Inapplicable:
            raise
        except Exception as error:  # plugin code may raise anything
            target = "" if tested.chosen is None else tested.resolved.entry.component.target
            what = f"raised {describe_error(error, target)}"
            if isinstance(error, Broken | ZooError):
                what = error.what if isinstance(error, ZooError) else str(error)
            raise Broken(
                f"{tested.label}: {what.rstrip('.')}.\n"
                f"  The contract ({self.name}): {self.asks}\n  {self.way_out}"
            ) from error


CHECKS: list[ConformanceCheck] = []
"""Every check; `checks_of` has them in order."""

_Run = Callable[[ComponentUnderTest], None]


def check(*kinds: str, slow: bool = False, basic: bool = False) -> Callable[[_Run], _Run]:
    """Make a function a `ConformanceCheck` of its name.

    The docstring's first paragraph is what the contract asks, the second one the way out.
    """

    def register(run: _Run) -> _Run:
        asks, way_out = (" ".join(text.split()) for text in (run.__doc__ or "").split("\n\n"))
        name = run.__name__.replace("_", "-")
        CHECKS.append(ConformanceCheck(name, kinds, asks, way_out, run, slow, basic))
        return run

    return register


def checks_of(kind: str, fast: bool = False) -> list[ConformanceCheck]:
    """The checks that a component of this kind is to pass."""
    modules = [importlib.import_module(f"simsiam_zoo.testing.{name}").__name__ for name in _MODULES]
    found = [each for each in CHECKS if kind in each.kinds and not (fast and each.slow)]
    # Not as they were imported: whoever imports a later module first would turn the order round.
    return sorted(found, key=lambda each: modules.index(each.run.__module__))


def expect(true: object, otherwise: str) -> None:
    """Raise Broken with the text `otherwise` unless `true`."""
    if not true:
        raise Broken(otherwise)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A case for each component and check, by the options."""
    asked = metafunc.config.getoption
    _FAILED.clear()
    cases = []
    try:
        for distribution in asked("zoo_plugin"):
            for tested in components_of(distribution, asked("zoo_spec")):
                for check in checks_of(tested.kind, fast=asked("zoo_fast")):
                    cases.append(pytest.param(tested, check, id=f"{tested.label}::{check.name}"))
    except ZooError as error:
        pytest.exit(str(error), pytest.ExitCode.USAGE_ERROR)
    metafunc.parametrize(("tested", "check"), cases)


def test_conformance(tested: ComponentUnderTest, check: ConformanceCheck) -> None:
    """Run a check. A component that fails a basic one is not asked the rest."""
    if tested.label in _FAILED and not check.basic:
        pytest.skip(f"{tested.label} has failed a check that this one rests on")
    failed = ""
    try:
        check.on(tested)
    except Inapplicable as reason:
        pytest.skip(str(reason))
    except Broken as error:
        failed = str(error)
    if failed:  # out here, so that no other exception is shown with it
        if check.basic:
            _FAILED.add(tested.label)
        pytest.fail(failed, pytrace=False)
