"""A component with its supplier, and one chosen for a run, which can be built."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from simsiam_zoo.catalog.component import Component, Family, load_target
from simsiam_zoo.catalog.discovery import Plugin
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
    def full(self) -> str:
        """The name that means this whatever else is installed: `simsiam-zoo/timm:vgg16`."""
        return f"{self.distribution}/{self.name}{'' if self.member is None else f':{self.member}'}"

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
