"""Who supplies a name: the rules by which it is given to one, to several or to nobody."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from simsiam_zoo.catalog.component import KINDS, Component, Family
from simsiam_zoo.catalog.discovery import HOST, Plugin, one_line


@dataclass(frozen=True, eq=False)
class Match:
    """Something that a name may mean: a component, a family, or with `member` one of a family's.

    Args:
        component: the descriptor.
        plugin: who supplies it.
        member: the name within the family.
    """

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
        component = self.component
        return component.prefix if isinstance(component, Family) else component.name

    @property
    def short(self) -> str:
        """The name without its distribution: `mlp`, `timm:vgg16`."""
        return self.name if self.member is None else f"{self.name}:{self.member}"

    @property
    def full(self) -> str:
        """The name that means this whatever else is installed: `simsiam-zoo/timm:vgg16`."""
        return f"{self.plugin.distribution}/{self.short}"


class Index:
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
            names: list[str] = []
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    names = sorted(component.names())
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a stranger's function, as in discovery
                self._failures[id(component)] = one_line(error)
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
