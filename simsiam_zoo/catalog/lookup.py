"""What a name means: a component with its supplier, one chosen for a run, and the rules between."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from simsiam_zoo.catalog.component import KINDS, Component, Family, load_target
from simsiam_zoo.catalog.discovery import HOST, Plugin
from simsiam_zoo.catalog.param import Value
from simsiam_zoo.errors import PluginError, ZooError, describe_error


@dataclass(frozen=True)
class CatalogEntry:
    """A component, a family or one of a family's members, and who supplies it.

    Args:
        component: what the plugin yielded.
        plugin: the plugin that yielded it.
        member: the name within the family.
        call: how a user writes it: `mlp`, `other-zoo/mlp`; a family ends in `:*`.
        status: `ok`: its bare name is its own. `shadowed`: the bare name is a built-in's.
            `ambiguous`: other third parties supply the name too, and none of them has it.
    """

    component: Component | Family
    plugin: Plugin
    member: str | None = None
    call: str = ""
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
    def short(self) -> str:
        """The name without its distribution: `mlp`, `timm:vgg16`."""
        return self.name if self.member is None else f"{self.name}:{self.member}"

    @property
    def full(self) -> str:
        """The name that means this whatever else is installed: `simsiam-zoo/timm:vgg16`."""
        return f"{self.distribution}/{self.short}"

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
        name: the shortest spelling that means this and nothing else.
        entry: the component or the family's member, and its supplier.
        params: every parameter, the defaults filled in.
    """

    name: str
    entry: CatalogEntry
    params: Mapping[str, Value]

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return self.entry.kind

    @property
    def member(self) -> str | None:
        """The name within the family, if it is one's."""
        return self.entry.member

    @property
    def id(self) -> str:
        """`distribution/name` or `distribution/family:name`, whatever else is installed."""
        return self.entry.full

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
        if self.entry.member is not None:
            arguments["name"] = self.entry.member
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


class NameIndex:
    """Components and families by kind, name and distribution.

    A bare name is looked for among the built-in components, then in the built-in families, then
    among third parties; within one distribution, a component goes before a family's member. So
    what a name means never depends on the order of installation, and for a built-in's name not on
    what else is installed either. A family's names are read only when a search gets that far.
    """

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self._supply: dict[str, list[CatalogEntry]] = {kind: [] for kind in KINDS}
        self._members: dict[int, dict[str, None]] = {}  # by id(): `names` need not be hashable
        self._failures: dict[int, str] = {}
        for plugin in plugins:
            for component in plugin.components:
                self._supply[component.kind].append(CatalogEntry(component, plugin))

    def of_kind(self, kind: str) -> list[CatalogEntry]:
        """All components and families of one kind."""
        return self._supply[kind]

    def named(self, kind: str, name: str, distribution: str | None = None) -> list[CatalogEntry]:
        """All that a name without a prefix means; more than one where it is ambiguous."""
        suppliers = self._suppliers(kind, distribution)
        if found := self._within(suppliers.pop(HOST, []), name):
            return found
        return [entry for supply in suppliers.values() for entry in self._within(supply, name)]

    def families(
        self, kind: str, prefix: str, distribution: str | None = None
    ) -> list[CatalogEntry]:
        """All families that a prefix means: the built-in one, or else every third party's."""
        suppliers = {
            supplier: [entry for entry in supply if entry.is_family and entry.name == prefix]
            for supplier, supply in self._suppliers(kind, distribution).items()
        }
        return suppliers.pop(HOST, []) or [entry for each in suppliers.values() for entry in each]

    def members(self, family: CatalogEntry) -> Mapping[str, None]:
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

    def failure(self, family: CatalogEntry) -> str | None:
        """Why the names of a family cannot be had, on one line; None where they can."""
        self.members(family)
        return self._failures.get(id(family.component))

    def _suppliers(self, kind: str, distribution: str | None) -> dict[str, list[CatalogEntry]]:
        suppliers: dict[str, list[CatalogEntry]] = {}
        for entry in self._supply[kind]:
            if distribution in (None, entry.distribution):
                suppliers.setdefault(entry.distribution, []).append(entry)
        return suppliers

    def _within(self, supply: list[CatalogEntry], name: str) -> list[CatalogEntry]:
        """What the name means to one distribution."""
        own = [entry for entry in supply if not entry.is_family and entry.name == name]
        return own or [
            replace(entry, member=name) for entry in supply if name in self.members(entry)
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
