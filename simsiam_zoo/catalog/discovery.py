"""Entry points → plugins: each loaded apart, attributed to its distribution, filtered by name.

A plugin that cannot be used costs its own components and nothing else. One that its metadata rule
out (another API version, a distribution that is switched off) is never imported.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pluggy

from simsiam_zoo.catalog import component as hookspecs
from simsiam_zoo.catalog.component import PROJECT, Component, Family
from simsiam_zoo.errors import InputError, describe_error, did_you_mean
from simsiam_zoo.runtime.folders import expand_user, user_folder

API = "v1"
"""The version of the plugin API that this host speaks; it is part of the entry-point group."""

HOST = "simsiam-zoo"
"""The distribution whose components are the built-in ones."""

SELECTION = "SIMSIAM_ZOO_PLUGINS"
"""The environment variable that limits plugins by distribution."""

CONFIG = "SIMSIAM_ZOO_CONFIG"
"""The environment variable that says where the configuration file is; empty: there is none."""

_GROUP = re.compile(r"simsiam_zoo\.(v\d+)\Z")
_CONFIG_KEYS = {"plugins": ("disabled",)}

Status = Literal["ok", "broken", "incompatible", "disabled"]
_Import = Callable[[], object]


@dataclass(frozen=True)
class Plugin:
    """One entry point, and what came of it.

    Args:
        name: the entry point's name.
        module: what it points to.
        distribution: who supplies it, normalized (PEP 503).
        version: of the distribution.
        api: the plugin API that it is written for, as its entry-point group says.
        status: only an `ok` plugin has components.
        cause: one line, why it is not ok.
        components: what it supplies.
        seconds: how long importing it and calling its hook took.
    """

    name: str
    module: str
    distribution: str
    version: str
    api: str
    status: Status = "ok"
    cause: str | None = None
    components: tuple[Component | Family, ...] = ()
    seconds: float = 0.0

    @property
    def supplier(self) -> str:
        """Distribution and version, as messages show them."""
        return f"{self.distribution} {self.version}"


def canonical_name(distribution: str) -> str:
    """The distribution's name as PEP 503 compares it: `Swish_Zoo` is `swish-zoo`."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def selection() -> frozenset[str] | None:
    """The distributions that `SIMSIAM_ZOO_PLUGINS` names; None where it is not set."""
    text = os.environ.get(SELECTION)
    if text is None:
        return None
    return frozenset(canonical_name(name.strip()) for name in text.split(",") if name.strip())


def config_path() -> Path | None:
    """Where the user's configuration file is, whether it exists or not; None: there is none."""
    text = os.environ.get(CONFIG)
    if text is not None:
        return expand_user(text) if text else None
    folder = user_folder("config")
    return None if folder is None else folder / "config.toml"


def disabled() -> frozenset[str]:
    """The distributions that the configuration file switches off.

        [plugins]
        disabled = ["some-zoo"]

    A file that is wrong is an error, not a warning: what it was to switch off would be imported.

    Raises:
        InputError: the file that SIMSIAM_ZOO_CONFIG names is missing, or a file cannot be read, is
            not TOML, says something that this version does not know, or names simsiam-zoo itself.
    """
    path = config_path()
    tree = {} if path is None else _read_config(path)
    plugins = tree.get("plugins", {})
    if not isinstance(plugins, dict):
        raise _wrong(path, "has a plugins that is no table", "Write [plugins].")
    for prefix, table, known in (("", tree, _CONFIG_KEYS), ("plugins.", plugins, ("disabled",))):
        for key in table:
            if key not in known:
                there = f"There is {', '.join(prefix + name for name in known)}."
                hint = did_you_mean(key, known, there)
                raise _wrong(path, f"has an unknown key {prefix}{key}", hint)
    names = plugins.get("disabled", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _wrong(path, f"has plugins.disabled = {names!r}", 'Write disabled = ["some-zoo"].')
    off = frozenset(map(canonical_name, names))
    if HOST in off:
        raise InputError(f"the configuration {path} disables {HOST}, which has the components")
    return off


def _read_config(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")  # editors on Windows write a BOM
    except FileNotFoundError:
        if os.environ.get(CONFIG):
            raise _wrong(path, "does not exist", f"{CONFIG} names it.") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(path, f"cannot be read: {error}") from None
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _wrong(path, f"is not TOML: {error}") from None


def _wrong(path: Path | None, what: str, hint: str | None = None) -> InputError:
    return InputError(f"the configuration {path} {what}", hint)


def discover(only: Collection[str] | None = None, off: Collection[str] = ()) -> tuple[Plugin, ...]:
    """Every installed plugin, the built-in one first, then by distribution and entry point.

    The order does not depend on when or where something was installed.

    Args:
        only: canonical names of distributions to load besides the built-in one; None loads all.
        off: canonical names of distributions that the configuration file switches off. `only` takes
            precedence over `off`.
    """
    plugins: list[Plugin] = []
    supplied: dict[tuple[str, object], str] = {}
    for plugin, load in sorted(_installed(), key=_order):
        if plugin.status == "ok" and only is not None and plugin.distribution not in {HOST, *only}:
            plugin = replace(plugin, status="disabled", cause=f"not named in {SELECTION}")
        if plugin.status == "ok" and only is None and plugin.distribution in off:
            plugin = replace(plugin, status="disabled", cause=f"switched off in {config_path()}")
        if plugin.status == "ok":
            plugin = _without_repeats(load_plugin(plugin, load), supplied)
        plugins.append(plugin)
    return tuple(plugins)


def load_plugin(plugin: Plugin, load: _Import) -> Plugin:
    """Import a plugin with `load` and ask it what it supplies.

    Whatever it raises is caught, SystemExit included, and what it prints goes to stderr: stdout
    belongs to the command that was asked for.
    """
    start = time.perf_counter()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            components = _call_hook(load(), plugin)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        cause = describe_error(error, plugin.module)
        plugin = replace(plugin, status="broken", cause=cause)
    else:
        plugin = replace(plugin, components=components)
    return replace(plugin, seconds=time.perf_counter() - start)


def _installed() -> Iterator[tuple[Plugin, _Import]]:
    """Each distribution's plugins, from metadata alone."""
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        # The text is looked at first since parsing the metadata of every installed distribution
        # would cost more than all the rest of `simsiam-zoo list`.
        if "simsiam_zoo." not in _entry_points_text(distribution):
            continue
        name, version = _name_and_version(distribution)
        if name in seen:  # the first on sys.path is the one that imports find
            continue
        seen.add(name)
        yield from _entry_points(distribution, name, version)


def _entry_points_text(distribution: importlib.metadata.Distribution) -> str:
    try:
        return distribution.read_text("entry_points.txt") or ""
    except (OSError, UnicodeDecodeError):  # some distribution's damaged file, perhaps no plugin's
        return ""


def _name_and_version(distribution: importlib.metadata.Distribution) -> tuple[str, str]:
    try:
        text = distribution.read_text("METADATA") or ""
        # Read by hand where that does: importing the standard library's parser of mail headers
        # and parsing the whole description with it would cost milliseconds for each plugin.
        head = dict(line.partition(": ")[::2] for line in text.partition("\n\n")[0].splitlines())
        if head.keys() >= {"Name", "Version"}:
            return canonical_name(head["Name"].strip()), head["Version"].strip()
        metadata = distribution.metadata
        return canonical_name(metadata["Name"]), metadata["Version"]
    except Exception:  # a folder without METADATA; the error differs between Pythons
        # Its own name tells it from others: left_over-1.0.dist-info.
        folder = Path(str(getattr(distribution, "_path", "unknown"))).stem
        name, _, version = folder.partition("-")
        return canonical_name(name), version or "unknown"


def _entry_points(
    distribution: importlib.metadata.Distribution, name: str, version: str
) -> Iterator[tuple[Plugin, _Import]]:
    try:
        points = list(distribution.entry_points)
    except Exception as error:  # importlib.metadata has no error of its own for a malformed file
        cause = f"entry_points.txt cannot be read: {describe_error(error)}"
        yield Plugin("unknown", "unknown", name, version, API, "broken", cause), lambda: None
        return
    found = [(match[1], point) for point in points if (match := _GROUP.match(point.group))]
    # A distribution that serves several API versions is meant to be loaded for ours only.
    ours = [(api, point) for api, point in found if api == API]
    for api, point in ours or found:
        plugin = Plugin(point.name, point.value, name, version, api)
        if api != API:
            cause = f"written for plugin API {api}; this simsiam-zoo has {API}"
            plugin = replace(plugin, status="incompatible", cause=cause)
        yield plugin, point.load


def _order(found: tuple[Plugin, object]) -> tuple[bool, str, str]:
    plugin, _ = found
    return plugin.distribution != HOST, plugin.distribution, plugin.name


def _call_hook(module: object, plugin: Plugin) -> tuple[Component | Family, ...]:
    """What `module` supplies, from a manager of its own: no other's hooks mix in."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module, f"{plugin.distribution}/{plugin.name}")
    manager.check_pending()
    if not manager.get_hookcallers(module):
        raise ValueError(f"nothing in {plugin.module} is marked with simsiam_zoo.plugin.hookimpl")
    supplied: dict[object, Component | Family] = {}
    for results in manager.hook.zoo_components():
        for item in results:
            if not isinstance(item, Component | Family):
                raise TypeError(f"zoo_components gave {item!r}, which is no Component or Family")
            if _key(item) in supplied:
                raise ValueError(f"zoo_components gave {_key(item)} twice")
            supplied[_key(item)] = item
    return tuple(supplied.values())


def _without_repeats(plugin: Plugin, supplied: dict[tuple[str, object], str]) -> Plugin:
    """`plugin`, broken if another entry point of its distribution supplies one of its names."""
    for item in plugin.components:
        other = supplied.get((plugin.distribution, _key(item)))
        if other is not None:
            cause = f"{_key(item)} is already supplied by its entry point {other}"
            return replace(plugin, status="broken", cause=cause, components=())
    for item in plugin.components:
        supplied[plugin.distribution, _key(item)] = plugin.name
    return plugin


def _key(item: Component | Family) -> str:
    return f"{item.kind} {item.name}{':' if isinstance(item, Family) else ''}"
