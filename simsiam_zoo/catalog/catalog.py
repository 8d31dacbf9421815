"""Names → components: what the user meant, or why it means nothing and what is near."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from simsiam_zoo.catalog.component import (
    HOST_SUPPLIED,
    KINDS,
    CatalogEntry,
    Family,
    Plugin,
    Resolved,
)
from simsiam_zoo.catalog.discovery import (
    HOST,
    SELECTION,
    canonical_name,
    discover,
    selection,
    warn,
)
from simsiam_zoo.catalog.local import LocalFile, local_files
from simsiam_zoo.catalog.param import complete_params, split_spec
from simsiam_zoo.errors import InputError, PluginError, ZooError, describe_error, did_you_mean


class Catalog:
    """What `plugins` supply, by kind and name.

    A bare name is looked for among the built-in components, then in the built-in families, then
    among third parties; within one distribution, a component goes before a family's member. So
    what a name means never depends on the order of installation, and for a built-in's name not on
    what else is installed either. A family's names are read only when a search gets that far.

    Args:
        plugins: as `discover` gives them. Their order is the order of listings, nothing else.
    """

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self.plugins = tuple(plugins)
        self._supply: dict[str, list[CatalogEntry]] = {kind: [] for kind in KINDS}
        self._members: dict[int, tuple[tuple[str, ...], str | None]] = {}  # by id of the family
        for plugin in self.plugins:
            for component in plugin.components:
                self._supply[component.kind].append(CatalogEntry(component, plugin))

    def entries(self, kind: str | None = None) -> tuple[CatalogEntry, ...]:
        """Components and families of one kind, or of all in the order of `KINDS`."""
        kinds = KINDS if kind is None else (check_kind(kind),)
        return tuple(self._placed(entry) for each in kinds for entry in self._supply[each])

    def families(self, kind: str) -> tuple[CatalogEntry, ...]:
        """The families of one kind."""
        return tuple(entry for entry in self.entries(kind) if entry.is_family)

    def members(self, family: CatalogEntry) -> tuple[str, ...]:
        """The names in a family, sorted. Raises PluginError where its plugin fails to say."""
        names, cause = self._ask_members(family)
        if cause is not None:
            raise PluginError(
                f"{family.kind} {family.full}:* cannot say what it holds: {cause}",
                f"This is a mistake in {family.plugin.supplier}, not in what you asked for.",
            )
        return names

    def pretrained(self, family: CatalogEntry) -> tuple[str, ...]:
        """The members of a family that have pretrained weights. Raises as `members` does."""
        ask = family.component.pretrained if isinstance(family.component, Family) else None
        if ask is None:
            return ()
        members = frozenset(self.members(family))
        names, cause = _ask_names(ask, family.component.target)
        if cause is not None:
            raise PluginError(
                f"{family.kind} {family.call} cannot say what has pretrained weights: {cause}"
            )
        return tuple(name for name in names if name in members)

    def member_call(self, family: CatalogEntry, member: str) -> str:
        """The shortest spelling that means this member of a family and nothing else."""
        entry = replace(family, member=member)
        if _is_alone(entry, self._named(entry.kind, member)):
            return member
        alone = _is_alone(entry, self._families(entry.kind, entry.name))
        return f"{entry.name}:{member}" if alone else entry.full

    def names(self, kind: str) -> tuple[str, ...]:
        """Every name of one kind as a user may write it: components, then families' members."""
        names = {entry.call: None for entry in self.entries(kind) if not entry.is_family}
        for entry in self._supply[kind]:
            for name in self._ask_members(entry)[0]:
                if name not in names and len(self._named(kind, name)) == 1:
                    names[name] = None
        return tuple(names)

    def resolve(self, kind: str, spec: str, params: Mapping[str, object] | None = None) -> Resolved:
        """What `[distribution/][family:]name[:key=value,...]` means, its parameters complete.

        Args:
            kind: one of `KINDS`.
            spec: what the user wrote.
            params: typed parameters from elsewhere (TOML); a key that `spec` gives too is refused.

        Raises:
            InputError: an unknown or ambiguous name or key, a value out of bounds.
            PluginError: `spec` names a distribution that is installed but cannot be used.
        """
        check_kind(kind)
        written, texts = split_spec(spec)
        distribution, name = _split_distribution(written)
        _, colon, member = name.partition(":")
        if colon:
            family = self.family(kind, written.removesuffix(f":{member}"), written)
            members = self.members(family)
            if member not in members:
                hint = did_you_mean(member.lower(), members, f"It has {len(members):,} names.")
                raise InputError(f"unknown {kind} {written!r}", hint)
            entry = replace(family, member=member)
        else:
            entry = self._only(kind, written, self._named(kind, name, distribution))
        what = f"{kind} {written}"
        for key in texts.keys() & (params or {}):
            raise InputError(f"{key} of {what} is given twice")
        given = complete_params(what, entry.component.params, {**texts, **(params or {})})
        entry = self._placed(entry)
        call = entry.call if entry.member is None else self.member_call(entry, entry.member)
        return Resolved(call, entry, given)

    def family(self, kind: str, name: str, written: str | None = None) -> CatalogEntry:
        """The family `[distribution/]prefix`. Its errors are those of `resolve`, on `written`."""
        distribution, prefix = _split_distribution(name)
        found = self._families(check_kind(kind), prefix, distribution)
        return self._placed(self._only(kind, written or name, found))

    def _named(self, kind: str, name: str, distribution: str | None = None) -> list[CatalogEntry]:
        """All that a name without a prefix means; more than one where it is ambiguous."""
        supply = [e for e in self._supply[kind] if distribution in (None, e.distribution)]
        for built_in in (True, False):
            level = [e for e in supply if (e.distribution == HOST) is built_in]
            found = [e for e in level if not e.is_family and e.name == name]
            owners = {e.distribution for e in found}
            families = [e for e in level if e.is_family and e.distribution not in owners]
            found += [replace(e, member=name) for e in families if name in self._ask_members(e)[0]]
            if found:
                return found
        return []

    def _families(
        self, kind: str, prefix: str, distribution: str | None = None
    ) -> list[CatalogEntry]:
        """All families that a prefix means: the built-in one, or else every third party's."""
        found = [
            entry
            for entry in self._supply[kind]
            if entry.is_family
            and entry.name == prefix
            and distribution in (None, entry.distribution)
        ]
        return [entry for entry in found if entry.distribution == HOST] or found

    def _ask_members(self, family: CatalogEntry) -> tuple[tuple[str, ...], str | None]:
        """The names in a family, asked for once; and where that failed none, and the cause."""
        component = family.component
        if not isinstance(component, Family):
            return (), None
        if id(component) not in self._members:  # `names` need not be hashable
            self._members[id(component)] = _ask_names(component.names, component.target)
        return self._members[id(component)]

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

    def _placed(self, entry: CatalogEntry) -> CatalogEntry:
        """`entry` with how its component or family is called, and why not by its bare name."""
        search = self._families if entry.is_family else self._named
        found = search(entry.kind, entry.name)
        call = f"{entry.name}:*" if entry.is_family else entry.name
        if _is_alone(entry, found):
            return replace(entry, call=call)
        built_in = found[0].distribution == HOST
        call = f"{entry.distribution}/{call}"
        return replace(entry, call=call, status="shadowed" if built_in else "ambiguous")

    def _unknown(self, kind: str, written: str) -> ZooError:
        """The error for a name that no plugin supplies, with all that may help."""
        distribution, rest = _split_distribution(written)
        what = f"unknown {kind} {written!r}"
        unusable = [plugin for plugin in self.plugins if plugin.status != "ok"]
        installed = {plugin.distribution for plugin in self.plugins}
        if distribution is not None and distribution not in installed:
            hint = did_you_mean(distribution, installed, "Is it installed?")
            return InputError(f"{what}: there is no plugin of {distribution}", hint)
        for plugin in unusable:
            if plugin.distribution == distribution:
                why = f"{plugin.supplier} is {plugin.status}: {plugin.cause}"
                return PluginError(f"{kind} {written!r} cannot be used: {why}")
        hints = self._suggestions(kind, distribution, rest)
        hints = hints or [f"`simsiam-zoo list {kind}` shows what there is."]
        missed = [f"{plugin.supplier} ({plugin.status})" for plugin in unusable]
        failed = [entry for entry in self._supply[kind] if self._ask_members(entry)[1] is not None]
        missed += [f"the names of {entry.full}:*" for entry in failed]
        if missed:
            hints.append(f"Not searched: {', '.join(missed)}. `simsiam-zoo list` says why.")
        return InputError(what, "\n  ".join(hints))

    def _suggestions(self, kind: str, distribution: str | None, rest: str) -> list[str]:
        prefix, colon, member = rest.partition(":")
        if colon and self._named(kind, prefix, distribution):
            return [f"Parameters are written {prefix}:KEY=VALUE."]
        if not colon and self._families(kind, rest, distribution):
            return [f"{rest} is a family: write {rest}:NAME."]
        supply = self._supply[kind]
        if colon:
            valid = [family.call.removesuffix("*") + member for family in self.families(kind)]
        elif distribution is not None:
            valid = [entry.name for entry in supply if entry.distribution == distribution]
        else:
            # An ambiguous name is near as well: written right, it says how to go on.
            supplied = [entry.name for entry in supply if not entry.is_family]
            valid = [*dict.fromkeys([*self.names(kind), *supplied])]
        near = did_you_mean(rest.lower(), valid)
        others = [
            f"{rest} is {'an' if other[0] in 'ae' else 'a'} {other}."
            for other in KINDS
            if other != kind and any(entry.name == rest for entry in self._supply[other])
        ]
        return [near, *others] if near else others


def catalog() -> Catalog:
    """The catalogue of what is installed, made once per process and selection of plugins.

    Each broken plugin costs one line on stderr. Raises PluginError where simsiam-zoo itself is not
    installed, and InputError where a local file has the name of an installed distribution.
    """
    return _catalog(selection(), local_files())


def is_made() -> bool:
    """Whether this process has a catalogue; before that no plugin's code has run in it."""
    return _catalog.cache_info().currsize > 0


@functools.cache
def _catalog(selected: frozenset[str] | None, files: tuple[LocalFile, ...]) -> Catalog:
    plugins = discover(selected)
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
            warn(f"plugin {plugin.name} of {plugin.supplier} is broken: {plugin.cause}")
    for name in sorted({name.removeprefix("-") for name in selected or ()} - installed):
        hint = did_you_mean(name, installed - {HOST}, "Is it installed?")
        warn(f"{SELECTION} names {name}, which has no plugin here. {hint}")
    return Catalog([*plugins, *(file.plugin for file in files)])


def create_component(kind: str, spec: str, **arguments: object) -> Any:
    """A component as a run would have it: parameters checked, the defaults filled in.

    `create_component("projector", "mlp:layers=2", in_dim=512, out_dim=256)`: the kind, what a user
    would write, then parameters and what the host supplies to a factory of this kind.

    Raises InputError for an unknown name, key or value, PluginError where it cannot be built.
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


def _ask_names(ask: Callable[[], Iterable[str]], target: str) -> tuple[tuple[str, ...], str | None]:
    """What a family's function gives, sorted; or nothing, and why, on one line."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to the command
            names = list(ask())
            wrong = [name for name in names if not isinstance(name, str)]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # plugin code may raise anything, SystemExit included
        return (), describe_error(error, target)
    if wrong:
        return (), f"it gives {wrong[0]!r}, which is no text"
    return tuple(sorted(names)), None


def _split_distribution(name: str) -> tuple[str | None, str]:
    distribution, slash, rest = name.partition("/")
    if not slash or ":" in distribution:  # a member may have a slash of its own: `hf:org/model`
        return None, name
    return canonical_name(distribution), rest


def _is_alone(entry: CatalogEntry, found: list[CatalogEntry]) -> bool:
    return len(found) == 1 and found[0].component is entry.component
