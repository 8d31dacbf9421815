"""What is checked: a distribution's plugins, and each component that they supply."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from simsiam_zoo.catalog import (
    HOST,
    HOST_SUPPLIED,
    Catalog,
    CatalogEntry,
    Plugin,
    Resolved,
    canonical_name,
    catalog,
    check_kind,
)
from simsiam_zoo.errors import InputError, did_you_mean

PLUGIN = "plugin"
"""The kind, as it were, of a plugin itself: the checks of its light module."""

SMALL = ("test_resnet",)
"""Members of families that stand for all of them where they are there; else the first does."""


@dataclass(frozen=True)
class Subject:
    """One component, as a run would have it: with all its parameters.

    Args:
        kind: one of `KINDS`, or `PLUGIN`.
        label: kind and name, for people.
        plugin: who supplies it.
        chosen: the component; None where the plugin itself is the subject.
    """

    kind: str
    label: str
    plugin: Plugin
    chosen: Resolved | None = None

    @property
    def distribution(self) -> str:
        """Who supplies it."""
        return self.plugin.distribution

    @property
    def part(self) -> Resolved:
        """The component."""
        assert self.chosen is not None
        return self.chosen

    @functools.cached_property
    def spec(self) -> str:
        """What a recipe calls it, parameters and all."""
        given = [f"{key}={_text(v)}" for key, v in self.part.params.items() if v is not None]
        return ":".join([self.part.id, ",".join(given)] if given else [self.part.id])

    @property
    def host(self) -> frozenset[str]:
        """The keywords that the host supplies to a factory of this kind."""
        supplied = HOST_SUPPLIED.get(self.kind, frozenset())
        return supplied if self.part.member is None else supplied | {"name"}

    def create(self, **host: object) -> Any:
        """The component, built as the host builds it."""
        return self.part.create(**host)


def subjects_of(distribution: str, specs: Sequence[str] = ()) -> Iterator[Subject]:
    """The plugins of a distribution, then each component, in the catalogue's order.

    Args:
        distribution: its name, in any spelling.
        specs: `KIND:SPEC`: how a component is to be checked, where its defaults do not do.

    Raises:
        InputError: it has no plugin here, or a spec means nothing.
    """
    known, name = catalog(), canonical_name(distribution)
    plugins = [plugin for plugin in known.plugins if plugin.distribution == name]
    if not plugins:
        installed = sorted({plugin.distribution for plugin in known.plugins})
        otherwise = f"Plugins are supplied by {', '.join(installed)}."
        raise InputError(
            f"there is no plugin of {distribution} here",
            did_you_mean(name, installed, otherwise),
        )
    asked = [_asked(known, text, name) for text in specs]
    for plugin in plugins:
        yield Subject(PLUGIN, f"plugin {plugin.name}", plugin)
    for entry in known.entries():
        if entry.distribution == name:
            own = [chosen for chosen in asked if chosen.entry == entry]
            chosen = own[0] if own else known.resolve(entry.kind, _spec(known, entry))
            yield Subject(entry.kind, f"{entry.kind} {chosen.name}", entry.plugin, chosen)


def _asked(known: Catalog, text: str, distribution: str) -> Resolved:
    kind, colon, spec = text.partition(":")
    if not colon:
        raise InputError(f"--zoo-spec is KIND:SPEC, not {text!r}")
    bare = spec.partition(":")[0]
    own = spec if distribution == HOST or "/" in bare else f"{distribution}/{spec}"
    return known.resolve(check_kind(kind), own)


def _spec(known: Catalog, entry: CatalogEntry) -> str:
    full = f"{entry.distribution}/{entry.name}"
    if not entry.is_family:
        return full
    members = known.members(entry)
    if not members:
        raise InputError(f"the family {full}: has no names")
    return f"{full}:{next((name for name in SMALL if name in members), members[0])}"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
