"""Entry points → plugins: each loaded apart, attributed to its distribution, filtered by name.

A plugin that cannot be used costs its own components and nothing else. One that its metadata rule
out (another API version, a distribution that is switched off) is never imported.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pluggy

from simsiam_zoo.catalog.component import PROJECT, Component, Family, Plugin, zoo_components
from simsiam_zoo.errors import describe_error

API = "v1"
"""The version of the plugin API that this host speaks; it is part of the entry-point group."""

HOST = "simsiam-zoo"
"""The distribution whose components are the built-in ones."""

SELECTION = "SIMSIAM_ZOO_PLUGINS"
"""The environment variable that limits plugins by distribution: `a,b` those, `-a,-b` all others."""

_GROUP = re.compile(r"\[simsiam_zoo\.(v\d+)\]\Z")

_HOOKS = ModuleType(PROJECT)
vars(_HOOKS)["zoo_components"] = zoo_components
# The hook alone: pluggy looks at each name of what it is given, which takes longer than all else.

_LONG_SECONDS = 2.0  # of all plugins together

_Import = Callable[[], object]


def warn(text: str) -> None:
    """A line on stderr, without the control characters that a plugin's metadata may have."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    print(f"{HOST}: {shown}", file=sys.stderr)


def canonical_name(distribution: str) -> str:
    """The distribution's name as PEP 503 compares it: `Swish_Zoo` is `swish-zoo`."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def selection() -> frozenset[str] | None:
    """What `SIMSIAM_ZOO_PLUGINS` names, one to leave out as `-name`; None where it is not set."""
    text = os.environ.get(SELECTION)
    if text is None:
        return None
    return frozenset(canonical_name(name.strip()) for name in text.split(",") if name.strip())


def discover(selected: Collection[str] | None = None) -> tuple[Plugin, ...]:
    """Every installed plugin, the built-in one first, then by distribution and entry point.

    That order depends on no installation. `selected` is as `selection` gives it; the built-in
    plugin is always loaded.
    """
    plugins: list[Plugin] = []
    found = sorted(_installed(), key=lambda each: (each[0].distribution, each[0].name))
    with _telling_what_takes_long() as loading:
        for plugin, load in sorted(found, key=lambda each: each[0].distribution != HOST):
            if plugin.status == "ok" and not _is_selected(plugin.distribution, selected):
                plugin = replace(plugin, status="disabled", cause=f"{SELECTION} leaves it out")
            if plugin.status == "ok":
                loading.append(plugin)
                plugin = load_plugin(plugin, load)
            plugins.append(plugin)
    return tuple(plugins)


@contextlib.contextmanager
def _telling_what_takes_long() -> Iterator[list[Plugin]]:
    """What is appended is being loaded: after a while the last of it is named on stderr."""
    loading: list[Plugin] = []

    def tell() -> None:
        if loading:
            plugin = loading[-1]
            way = f"{SELECTION}=-{plugin.distribution} leaves it out"
            warn(f"waiting for {plugin.supplier} to load; {way}")

    timer = threading.Timer(_LONG_SECONDS, tell)
    timer.daemon = True  # it keeps no process from ending
    timer.start()
    try:
        yield loading
    finally:
        timer.cancel()


def load_plugin(plugin: Plugin, load: _Import) -> Plugin:
    """Import a plugin with `load` and ask it what it supplies.

    Whatever it raises is caught, SystemExit included, and what it prints goes to stderr: stdout
    belongs to the command that was asked for.
    """
    start = time.perf_counter()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            plugin = replace(plugin, components=_call_hook(load(), plugin))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        plugin = replace(plugin, status="broken", cause=describe_error(error, plugin.module))
    return replace(plugin, seconds=time.perf_counter() - start)


def _is_selected(distribution: str, selected: Collection[str] | None) -> bool:
    if selected is None or distribution == HOST:
        return True
    if f"-{distribution}" in selected:
        return False
    only = [name for name in selected if not name.startswith("-")]
    return distribution in only or (not only and len(selected) > 0)


def _installed() -> Iterator[tuple[Plugin, _Import]]:
    """Each distribution's plugins, from the metadata in the folders of sys.path.

    Read without importlib.metadata: to import it takes as long as all the rest of the search.
    """
    seen: set[str] = set()
    for folder in sys.path:
        try:
            entries = os.listdir(folder or os.curdir)
        except OSError:  # there is no such folder
            continue
        for entry in entries:
            if not entry.endswith((".dist-info", ".egg-info")):
                continue
            place = f"{folder or os.curdir}/{entry}"
            try:
                with open(f"{place}/entry_points.txt", encoding="utf-8") as file:
                    text = file.read()
            except (OSError, UnicodeDecodeError):  # none, or a damaged file, perhaps no plugin's
                continue
            if "simsiam_zoo." in text:
                name, version = _name_and_version(Path(place))
                if name not in seen:  # the first on sys.path is the one that imports find
                    seen.add(name)
                    yield from _entry_points(text, name, version)


def _name_and_version(folder: Path) -> tuple[str, str]:
    """As the metadata have them; without a file of them, as in the folder's name."""
    name, _, version = folder.stem.partition("-")
    stated = {"Name": name, "Version": version or "unknown"}
    for file in (folder / "METADATA", folder / "PKG-INFO"):
        with contextlib.suppress(OSError):
            headers = file.read_text("utf-8", errors="replace").partition("\n\n")[0]
            stated |= re.findall(r"^(Name|Version):[ \t]*(\S+)", headers, re.MULTILINE)
    return canonical_name(stated["Name"]), stated["Version"]


def _entry_points(text: str, name: str, version: str) -> Iterator[tuple[Plugin, _Import]]:
    found, group = [], None
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            group = _GROUP.match(line)
        elif group and line and not line.startswith(("#", ";")):
            point, equals, value = map(str.strip, line.partition("="))
            if not (point and equals and value):
                cause = f"entry_points.txt cannot be read: {line!r} is no entry point"
                yield Plugin("unknown", "unknown", name, version, API, "broken", cause), object
                return
            found.append(Plugin(point, value.partition("[")[0].strip(), name, version, group[1]))
    # A distribution that serves several API versions is meant to be loaded for ours only.
    for plugin in [each for each in found if each.api == API] or found:
        if plugin.api != API:
            cause = f"written for plugin API {plugin.api}; this simsiam-zoo has {API}"
            plugin = replace(plugin, status="incompatible", cause=cause)
        yield plugin, functools.partial(_load, plugin.module)


def _load(reference: str) -> object:
    """What an entry point refers to: `module`, or `module:attribute`."""
    module, _, attribute = reference.partition(":")
    return functools.reduce(
        getattr, filter(None, attribute.split(".")), importlib.import_module(module)
    )


def _call_hook(module: object, plugin: Plugin) -> tuple[Component | Family, ...]:
    """What `module` supplies, from a manager of its own: no other's hooks mix in."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(_HOOKS)
    manager.register(module, f"{plugin.distribution}/{plugin.name}")
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        unknown = str(error).partition(" in plugin ")[0]  # then a path
        raise ValueError(f"{unknown}; the one hook is zoo_components") from None
    if not manager.get_hookcallers(module):
        raise ValueError(f"nothing in {plugin.module} is marked with simsiam_zoo.plugin.hookimpl")
    supplied: dict[str, Component | Family] = {}
    for results in manager.hook.zoo_components():
        for item in results:
            if not isinstance(item, Component | Family):
                raise TypeError(f"zoo_components gave {item!r}, which is no Component or Family")
            key = f"{item.kind} {item.name}{':' if isinstance(item, Family) else ''}"
            if key in supplied:
                raise ValueError(f"zoo_components gave {key} twice")
            supplied[key] = item
    return tuple(supplied.values())
