"""Names → components: what the user meant, or why it means nothing and what is near."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from simsiam_zoo.catalog.component import HOST_SUPPLIED, KINDS, Family
from simsiam_zoo.catalog.discovery import (
    HOST,
    SELECTION,
    Plugin,
    canonical_name,
    disabled,
    discover,
    selection,
)
from simsiam_zoo.catalog.local import LocalFile, local_files
from simsiam_zoo.catalog.lookup import CatalogEntry, NameIndex, Resolved, ask_names
from simsiam_zoo.catalog.param import complete_params, split_spec
from simsiam_zoo.errors import InputError, PluginError, ZooError, did_you_mean


class Catalog:
    """What `plugins` supply, by kind and name. `NameIndex` has the rules.

    Args:
        plugins: as `discover` gives them. Their order is the order of listings, nothing else.
    """

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self.plugins = tuple(plugins)
        self._index = NameIndex(self.plugins)

    def entries(self, kind: str | None = None) -> tuple[CatalogEntry, ...]:
        """Components and families of one kind, or of all in the order of `KINDS`."""
        kinds = KINDS if kind is None else (check_kind(kind),)
        return tuple(self._placed(entry) for each in kinds for entry in self._index.of_kind(each))

    def families(self, kind: str) -> tuple[CatalogEntry, ...]:
        """The families of one kind."""
        return tuple(entry for entry in self.entries(kind) if entry.is_family)

    def members(self, family: CatalogEntry) -> tuple[str, ...]:
        """The names in a family, sorted.

        Raises:
            PluginError: the plugin that supplies it failed to give them.
        """
        if (cause := self._index.failure(family)) is not None:
            raise PluginError(
                f"{family.kind} {family.full}:* cannot say what it holds: {cause}",
                f"This is a mistake in {family.plugin.supplier}, not in what you asked for.",
            )
        return tuple(self._index.members(family))

    def pretrained(self, family: CatalogEntry) -> tuple[str, ...]:
        """The members of a family that have pretrained weights; none where it cannot say.

        Raises:
            PluginError: the plugin that supplies it failed to give them.
        """
        ask = family.component.pretrained if isinstance(family.component, Family) else None
        if ask is None:
            return ()
        members = frozenset(self.members(family))
        names, cause = ask_names(ask, family.component.target)
        if cause is not None:
            raise PluginError(
                f"{family.kind} {family.call} cannot say what has pretrained weights: {cause}"
            )
        return tuple(name for name in names if name in members)

    def member_call(self, family: CatalogEntry, member: str) -> str:
        """The shortest spelling that means this member of a family and nothing else."""
        return self._shortest(replace(family, member=member))

    def names(self, kind: str) -> tuple[str, ...]:
        """Every name of one kind as a user may write it: components, then families' members."""
        names = {entry.call: None for entry in self.entries(kind) if not entry.is_family}
        for entry in self._index.of_kind(kind):
            for name in self._index.members(entry):
                if name not in names and len(self._index.named(kind, name)) == 1:
                    names[name] = None
        return tuple(names)

    def resolve(self, kind: str, spec: str, params: Mapping[str, object] | None = None) -> Resolved:
        """What `[distribution/][family:]name[:key=value,...]` means, its parameters complete.

        Args:
            kind: one of `KINDS`.
            spec: what the user wrote.
            params: typed parameters from elsewhere (TOML); a key that `spec` gives too is refused.

        Raises:
            InputError: an unknown or ambiguous name, an unknown key, a value that is out of
                bounds; the message has the nearest valid spelling.
            PluginError: `spec` names a distribution that is installed but cannot be used.
        """
        check_kind(kind)
        name, texts = split_spec(spec)
        entry = self._find(kind, name)
        what = f"{kind} {name}"
        given = complete_params(what, entry.component.params, texts, params or {})
        return Resolved(self._shortest(entry), self._placed(entry), given)

    def family(self, kind: str, name: str) -> CatalogEntry:
        """The family `[distribution/]prefix`. Raises as `resolve` does."""
        distribution, prefix = _split_distribution(name)
        return self._placed(self._family(check_kind(kind), distribution, prefix, name))

    def _find(self, kind: str, name: str) -> CatalogEntry:
        distribution, rest = _split_distribution(name)
        prefix, colon, member = rest.partition(":")
        if not colon:
            return self._only(kind, name, self._index.named(kind, rest, distribution))
        family = self._family(kind, distribution, prefix, name)
        names = self.members(self._placed(family))
        if member not in names:
            hint = did_you_mean(member.lower(), names, f"It has {len(names):,} names.")
            raise InputError(f"unknown {kind} {name!r}", hint)
        return replace(family, member=member)

    def _family(
        self, kind: str, distribution: str | None, prefix: str, written: str
    ) -> CatalogEntry:
        return self._only(kind, written, self._index.families(kind, prefix, distribution))

    def _only(self, kind: str, written: str, matches: list[CatalogEntry]) -> CatalogEntry:
        if not matches:
            raise self._unknown(kind, written)
        if len(matches) > 1:
            suppliers = " and ".join(dict.fromkeys(entry.plugin.supplier for entry in matches))
            ways = " or ".join(entry.full for entry in matches)
            raise InputError(
                f"{kind} {written!r} is ambiguous: {suppliers} supply it", f"Write {ways}."
            )
        return matches[0]

    def _shortest(self, entry: CatalogEntry) -> str:
        """The shortest spelling that means `entry` and nothing else."""
        bare = entry.name if entry.member is None else entry.member
        if _is_alone(entry, self._index.named(entry.kind, bare)):
            return bare
        if entry.member is not None:
            families = self._index.families(entry.kind, entry.name)
            return entry.short if _is_alone(entry, families) else entry.full
        return entry.full

    def _placed(self, entry: CatalogEntry) -> CatalogEntry:
        """`entry` with how its component or family is called, and why not by its bare name."""
        search = self._index.families if entry.is_family else self._index.named
        found = search(entry.kind, entry.name)
        end = ":*" if entry.is_family else ""
        if _is_alone(entry, found):
            return replace(entry, call=f"{entry.name}{end}")
        built_in = found[0].distribution == HOST
        call = f"{entry.distribution}/{entry.name}{end}"
        return replace(entry, call=call, status="shadowed" if built_in else "ambiguous")

    def _unknown(self, kind: str, written: str) -> ZooError:
        """The error for a name that no plugin supplies, with all that may help."""
        distribution, rest = _split_distribution(written)
        what = f"unknown {kind} {written!r}"
        unusable = [plugin for plugin in self.plugins if plugin.status != "ok"]
        if distribution is not None:
            installed = {plugin.distribution for plugin in self.plugins}
            if distribution not in installed:
                hint = did_you_mean(distribution, installed, "Is it installed?")
                return InputError(f"{what}: there is no plugin of {distribution}", hint)
            for plugin in unusable:
                if plugin.distribution == distribution:
                    why = f"{plugin.supplier} is {plugin.status}: {plugin.cause}"
                    return PluginError(f"{kind} {written!r} cannot be used: {why}")
        hints = self._suggestions(kind, distribution, rest)
        hints = hints or [f"`simsiam-zoo list {kind}` shows what there is."]
        missed = [f"{plugin.supplier} ({plugin.status})" for plugin in unusable] + [
            f"the names of {entry.full}:*"
            for entry in self._index.of_kind(kind)
            if self._index.failure(entry) is not None
        ]
        if missed:
            hints.append(f"Not searched: {', '.join(missed)}. `simsiam-zoo list` says why.")
        return InputError(what, "\n  ".join(hints))

    def _suggestions(self, kind: str, distribution: str | None, rest: str) -> list[str]:
        prefix, colon, member = rest.partition(":")
        if colon and self._index.named(kind, prefix, distribution):
            return [f"Parameters are written {prefix}:KEY=VALUE."]
        if not colon and self._index.families(kind, rest, distribution):
            return [f"{rest} is a family: write {rest}:NAME."]
        if colon:
            families = [entry.call.removesuffix("*") for entry in self.families(kind)]
            valid = [family + member for family in families]
        elif distribution is not None:
            supply = self._index.of_kind(kind)
            valid = [entry.name for entry in supply if entry.distribution == distribution]
        else:
            # An ambiguous name is near as well: written right, it says how to go on.
            supplied = [entry.name for entry in self._index.of_kind(kind) if not entry.is_family]
            valid = [*dict.fromkeys([*self.names(kind), *supplied])]
        near = did_you_mean(rest.lower(), valid)
        others = [
            other
            for other in KINDS
            if other != kind and any(entry.name == rest for entry in self._index.of_kind(other))
        ]
        return [*filter(None, [near]), *(f"{rest} is a {other}." for other in others)]


def catalog() -> Catalog:
    """The catalogue of what is installed, made once per process and selection of plugins.

    Each broken plugin costs one line on stderr.

    Raises:
        PluginError: simsiam-zoo itself is not installed, so that not even its own components are
            known.
        InputError: the configuration file is wrong, or a local file in use has the name of an
            installed distribution.
    """
    return _catalog(selection(), disabled(), local_files())


@functools.cache
def _catalog(
    only: frozenset[str] | None, off: frozenset[str], files: tuple[LocalFile, ...]
) -> Catalog:
    plugins = discover(only, off)
    installed = {plugin.distribution for plugin in plugins}
    for file in files:
        if file.plugin.distribution in installed:
            raise InputError(
                f"the plugin {file.path} has the name of an installed distribution,"
                f" {file.plugin.distribution}",
                "Rename the file.",
            )
    if HOST not in installed:
        root = Path(__file__).parents[2]
        raise PluginError(
            f"{HOST} is not installed: {root} is imported, but has no entry point, so there are"
            " no components",
            f"Install it: python -m pip install -e {root}",
        )
    for plugin in plugins:
        if plugin.status == "broken":
            _warn(f"plugin {plugin.name} of {plugin.supplier} is broken: {plugin.cause}")
    for name in sorted((only or set()) - installed):
        hint = did_you_mean(name, installed - {HOST}, "Is it installed?")
        _warn(f"{SELECTION} names {name}, which has no plugin here. {hint}")
    return Catalog([*plugins, *(file.plugin for file in files)])


def create_component(kind: str, spec: str, **arguments: object) -> Any:
    """A component as a run would have it: parameters checked, the defaults filled in.

    `create_component("projector", "mlp:layers=2", in_dim=512, out_dim=256)`

    Args:
        kind: one of `KINDS`.
        spec: what a user would write.
        arguments: parameters, and what the host supplies to a factory of this kind.

    Raises:
        InputError, PluginError: as `Catalog.resolve` and `Resolved.create` do.
    """
    supplied = HOST_SUPPLIED.get(kind, frozenset())
    params = {key: value for key, value in arguments.items() if key not in supplied}
    host = {key: value for key, value in arguments.items() if key in supplied}
    return catalog().resolve(kind, spec, params).create(**host)


def check_kind(kind: str) -> str:
    """`kind`, if it is one. Raises InputError with the nearest."""
    if kind not in KINDS:
        hint = did_you_mean(kind.lower(), KINDS, f"The kinds are {', '.join(KINDS)}.")
        raise InputError(f"unknown kind {kind!r}", hint)
    return kind


def _split_distribution(name: str) -> tuple[str | None, str]:
    distribution, slash, rest = name.partition("/")
    if not slash or ":" in distribution:  # a member may have a slash of its own: `hf:org/model`
        return None, name
    return canonical_name(distribution), rest


def _is_alone(entry: CatalogEntry, found: list[CatalogEntry]) -> bool:
    return len(found) == 1 and found[0].component is entry.component


def _warn(text: str) -> None:
    print(f"{HOST}: {text}", file=sys.stderr)
