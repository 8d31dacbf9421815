"""A component with its supplier, and one chosen for a run with all of its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from simsiam_zoo.catalog.component import Component, Family, Value, load_target
from simsiam_zoo.catalog.discovery import Plugin
from simsiam_zoo.errors import PluginError, ZooError


@dataclass(frozen=True)
class Entry:
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
        component = self.component
        return component.prefix if isinstance(component, Family) else component.name

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
    entry: Entry
    params: Mapping[str, Value]
    member: str | None = None

    def create(self, **host: object) -> Any:
        """Import the target and call it.

        It gets its params, `name=` if it is a family, and those of the keywords `host` that it
        declares.

        Raises:
            PluginError: it cannot be imported or called as its descriptor says, or it failed.
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
                f"{self.kind} {self.id} could not be built: {type(error).__name__}: {error}"
            ) from error
