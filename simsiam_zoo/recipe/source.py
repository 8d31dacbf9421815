"""Which source decides what a run computes, and a digest of it.

A wheel's version stands for its source. An editable install can change under one version, so its
files are hashed: of this package all but those that `SHOWS` names, of a plugin all its packages.
Nothing is imported for it. Other packages that a plugin imports are known by their versions.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from simsiam_zoo.catalog import HOST, Resolved
from simsiam_zoo.catalog.local import local_file

SHOWS: Mapping[str, str] = {
    **dict.fromkeys(("__init__", "__main__", "charts", "errors", "metrics", "plugin"), "*"),
    **dict.fromkeys(("api", "catalog", "cli", "exchange", "recipe", "report"), "*"),
    **dict.fromkeys(("studies", "testing"), "*"),
    "components": "__init__ loggers plugin",
    "data": "__init__ inspection packing processes remote",
    "runtime": "__init__ checkpoint folders machine progress",
    "training": "__init__ advice run_folder wiring",
}
"""Room → its modules and packages (or `*`, all) that find, fetch, check, show or write: no edit of
them changes a figure. Any other module computes.

The values of a recipe and the names and parameters of components are in the identity themselves,
and what a shard holds is in the data's digest.
"""

_PACKAGE = __name__.partition(".")[0]
_SUFFIXES = frozenset({".py", ".so", ".pyd", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h"})
_IMPORTS = re.compile(r"^[ \t]*(?:from[ \t]+(\w+)|import[ \t]+([^;#\n]+))", re.MULTILINE)
_FIRST = re.compile(r"(?:^|,)[ \t]*(\w+)")


def code_of(components: Iterable[Resolved]) -> dict[str, str]:
    """What stands for the source of this package and of the components' distributions.

    It is looked at once in a process, so that an edit after that does not pass for what runs.

    Returns:
        Distribution → `version X`, or `source` and 16 hex digits where a version does not tell.
    """
    modules: dict[str, set[str]] = {HOST: set()}
    versions = {HOST: installed_version(HOST)}
    for component in components:
        distribution = component.entry.distribution
        versions[distribution] = component.entry.version
        target = component.entry.component.target.partition(":")[0]
        modules.setdefault(distribution, set()).add(target.partition(".")[0])
    found = {}
    for distribution in sorted(modules):
        if (file := local_file(distribution)) is not None:
            digest: str | None = file.digest[:16]
        else:
            digest = _source(distribution, frozenset(modules[distribution]))
        version = f"version {versions[distribution]}"
        found[distribution] = version if digest is None else f"source {digest}"
    return found


@cache
def _source(distribution: str, modules: frozenset[str]) -> str | None:
    """The digest of an editable distribution; None of one that its version stands for."""
    if not is_editable(distribution):
        return None
    if distribution == HOST:
        return host_digest(Path(__file__).parents[1])
    return plugin_digest(distribution, modules)


def computes(module: str) -> bool:
    """Whether an edit of a module, `data.image` or `data.__init__`, may change a figure."""
    room, *below = module.split(".")
    shown = SHOWS.get(room, "").split()
    return not {"*", *below[:1]}.intersection(shown)


def host_digest(package: Path) -> str:
    """The digest of the modules that compute, in the folder of this package."""
    files = sorted(package.rglob("*.py"))
    named = {".".join(file.relative_to(package).with_suffix("").parts): file for file in files}
    return _digest({name: file for name, file in named.items() if computes(name)})


def plugin_digest(distribution: str, modules: Iterable[str]) -> str:
    """The digest of the top-level packages and modules that a plugin brings.

    They are those of its entry points and of `modules`, and those beside them that they import.
    """
    points = importlib.metadata.distribution(distribution).entry_points
    wanted = {*modules, *(point.module.partition(".")[0] for point in points)}
    homes = {home for name in wanted for home in _homes(name)}
    # Beside installed packages, what is imported is another distribution's.
    alone = not any(True for home in homes for _ in home.glob("*.dist-info"))
    files: dict[str, Path] = {}
    seen = {_PACKAGE}
    while wanted := wanted - seen:
        name = wanted.pop()
        seen.add(name)
        for home in homes:
            for file in (*home.glob(f"{name}.*"), *(home / name).rglob("*")):
                if file.suffix in _SUFFIXES and file.is_file():
                    files[file.relative_to(home).as_posix()] = file
                    if alone and file.suffix == ".py":
                        wanted |= _imported(file.read_bytes())
    return _digest(files)


def _homes(name: str) -> list[Path]:
    """The folders that hold the source of a top-level module or package."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module without a spec has that name
        spec = None
    places = (spec.submodule_search_locations or [spec.origin or ""]) if spec else []
    return [Path(place).parent for place in places if Path(place).is_absolute()]


def _imported(source: bytes) -> set[str]:
    """The top-level names that a module imports, anywhere in it."""
    lists = (one or several for one, several in _IMPORTS.findall(source.decode("utf-8", "replace")))
    return {name for names in lists for name in _FIRST.findall(names)}


@cache
def installed_version(distribution: str) -> str:
    """The version that is installed, or `not installed`."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def is_editable(distribution: str) -> bool:
    """Whether the distribution's files may change under one version."""
    try:
        metadata = importlib.metadata.distribution(distribution)
        origin = json.loads(metadata.read_text("direct_url.json") or "{}")
    except importlib.metadata.PackageNotFoundError:
        return False
    except ValueError:
        return True  # what cannot be read may hold anything
    editable = isinstance(origin, dict) and origin.get("dir_info", {}).get("editable")
    return bool(editable) or metadata.read_text("RECORD") is None


def _digest(named: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, file in sorted(named.items()):
        digest.update(f"{name}\0".encode("utf-8", "surrogateescape"))
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]
