"""What a name means: a component with its supplier, one chosen for a run, and the rules between."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from simsiam_zoo.catalog.component import KINDS, Component, Family, load_target
from simsiam_zoo.catalog.discovery import HOST, Plugin
from simsiam_zoo.catalog.param import Value
from simsiam_zoo.errors import PluginError, ZooError, describe_error


@dataclass(frozen=True)
class CatalogEntry:
    """A component or family, who supplies it, and how a user reaches it.

    Args:
        component: what the plugin yielded.
        plugin: the plugin that yielded it.
        call: how a user writes it: `mlp`, `other-zoo/mlp`; a family ends in `:*`.
        status: `ok`: its bare name is its own. `shadowed`: the bare name is a built-in's.
            `ambiguous`: other third parties supply the name as well, and nobody has it.
    """

    component: Component | Family
    plugin: Plugin
    call: str
    status: Literal["ok", "shadowed", "ambiguous"] = "ok"

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return self.component.kind

    @property
    def name(self) -> str:
        """The component's name, or the family's prefix."""
        return self.component.name

    @property
    def is_family(self) -> bool:
        """Whether this is a whole library behind one prefix."""
        return isinstance(self.component, Family)

    @property
    def distribution(self) -> str:
        """Who supplies it."""
        return self.plugin.distribution

    @property
    def version(self) -> str:
        """The distribution's version."""
        return self.plugin.version

    @property
    def note(self) -> str | None:
        """How to call it where its bare name does not do; None where it does."""
        if self.status == "ok":
            return None
        owner = "is built in" if self.status == "shadowed" else "is supplied by others too"
        return f"the name {self.name} {owner}: write {self.call}"


@dataclass(frozen=True)
class Resolved:
    """One component, chosen and complete: everything that building it needs.

    Args:
        kind: one of `KINDS`.
        name: the shortest spelling that means this and nothing else.
        id: `distribution/name` or `distribution/family:name`; it means the same wherever it is
            read, whatever else is installed.
        entry: the component or family, and its supplier.
        params: every parameter, the defaults filled in.
        member: the name within the family, if it is one's.
    """

    kind: str
    name: str
    id: str
    entry: CatalogEntry
    params: Mapping[str, Value]
    member: str | None = None

    def create(self, **host: object) -> Any:
        """Import the target and call it.

        It gets its params, `name=` if it is a family, and those of the keywords `host` that it
        declares.

        Raises:
            PluginError: it cannot be imported or called as its descriptor says, or it failed; the
                text has the file and the line.
            ZooError: whatever it raises of that tree itself.
        """
        target = self.entry.component.target
        factory = load_target(target, f"{self.kind} {self.id}")
        arguments: dict[str, object] = dict(self.params)
        if self.member is not None:
            arguments["name"] = self.member
        try:
            signature = inspect.signature(factory)
            declared = signature.parameters
            arguments |= {key: value for key, value in host.items() if key in declared}
            signature.bind(**arguments)
        except (TypeError, ValueError) as error:
            raise PluginError(
                f"{self.kind} {self.id}: {target} does not take what its descriptor says: {error}",
                f"This is a mistake in {self.entry.plugin.supplier}, not in what you asked for.",
            ) from error
        try:
            return factory(**arguments)
        except ZooError:
            raise
        except Exception as error:
            raise PluginError(
                f"{self.kind} {self.id} could not be built: {describe_error(error, target)}"
            ) from error


@dataclass(frozen=True, eq=False)
class Match:
    """Something that a name may mean: a component, a family, or with `member` one of a family's."""

    component: Component | Family
    plugin: Plugin
    member: str | None = None

    @property
    def is_family(self) -> bool:
        """Whether the descriptor is a family's."""
        return isinstance(self.component, Family)

    @property
    def name(self) -> str:
        """The component's name, or the family's prefix."""
        return self.component.name

    @property
    def short(self) -> str:
        """The name without its distribution: `mlp`, `timm:vgg16`."""
        return self.name if self.member is None else f"{self.name}:{self.member}"

    @property
    def full(self) -> str:
        """The name that means this whatever else is installed: `simsiam-zoo/timm:vgg16`."""
        return f"{self.plugin.distribution}/{self.short}"


class NameIndex:
    """Components and families by kind, name and distribution.

    A bare name is looked for among the built-in components, then in the built-in families, then
    among third parties; within one distribution, a component goes before a family's member. So
    what a name means never depends on the order of installation, and for a built-in's name not on
    what else is installed either. A family's names are read only when a search gets that far.
    """

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self._supply: dict[str, list[Match]] = {kind: [] for kind in KINDS}
        self._members: dict[int, dict[str, None]] = {}  # by id(): `names` need not be hashable
        self._failures: dict[int, str] = {}
        for plugin in plugins:
            for component in plugin.components:
                self._supply[component.kind].append(Match(component, plugin))

    def of_kind(self, kind: str) -> list[Match]:
        """All components and families of one kind."""
        return self._supply[kind]

    def named(self, kind: str, name: str, distribution: str | None = None) -> list[Match]:
        """All that a name without a prefix means; more than one where it is ambiguous."""
        suppliers = self._suppliers(kind, distribution)
        if found := self._within(suppliers.pop(HOST, []), name):
            return found
        return [match for supply in suppliers.values() for match in self._within(supply, name)]

    def families(self, kind: str, prefix: str, distribution: str | None = None) -> list[Match]:
        """All families that a prefix means: the built-in one, or else every third party's."""
        suppliers = {
            supplier: [match for match in supply if match.is_family and match.name == prefix]
            for supplier, supply in self._suppliers(kind, distribution).items()
        }
        return suppliers.pop(HOST, []) or [match for each in suppliers.values() for match in each]

    def members(self, family: Match) -> Mapping[str, None]:
        """The names in a family, sorted, asked for once; none where asking failed."""
        component = family.component
        if not isinstance(component, Family):
            return {}
        if id(component) not in self._members:
            names, cause = ask_names(component.names, component.target)
            if cause is not None:
                self._failures[id(component)] = cause
            self._members[id(component)] = dict.fromkeys(names)
        return self._members[id(component)]

    def failure(self, family: Match) -> str | None:
        """Why the names of a family cannot be had, on one line; None where they can."""
        self.members(family)
        return self._failures.get(id(family.component))

    def _suppliers(self, kind: str, distribution: str | None) -> dict[str, list[Match]]:
        suppliers: dict[str, list[Match]] = {}
        for match in self._supply[kind]:
            if distribution in (None, match.plugin.distribution):
                suppliers.setdefault(match.plugin.distribution, []).append(match)
        return suppliers

    def _within(self, supply: list[Match], name: str) -> list[Match]:
        """What the name means to one distribution."""
        own = [match for match in supply if not match.is_family and match.name == name]
        return own or [
            Match(match.component, match.plugin, name)
            for match in supply
            if name in self.members(match)
        ]


def ask_names(ask: Callable[[], Iterable[str]], target: str) -> tuple[list[str], str | None]:
    """What a family's function gives, sorted; or nothing, and why, on one line."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to the command
            names = list(ask())
            wrong = [name for name in names if not isinstance(name, str)]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # plugin code may raise anything, SystemExit included
        return [], describe_error(error, target)
    return ([], f"it gives {wrong[0]!r}, which is no text") if wrong else (sorted(names), None)
