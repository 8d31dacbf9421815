"""A local file as a plugin, for as long as the process lives: `--plugin ./part.py`.

The file's module is called by its stem, so that a target may be in the same file
(`part:Projector`), and so is its distribution. What was read is kept in the user's cache by its
digest, and that copy is what this process, its workers, a study's jobs and readers of the run
import, also when the file is edited or moved meanwhile. A run's record gets no other file executed
than one that this user has named before: a run's folder may come from anywhere.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simsiam_zoo.catalog.component import Plugin
from simsiam_zoo.catalog.discovery import API, canonical_name, load_plugin
from simsiam_zoo.errors import DataError, InputError, PluginError
from simsiam_zoo.runtime.folders import atomic_write, cache_dir, expand_user

LOCAL_VERSION = "local"
"""What stands for the version of a file's distribution; its digest tells one from another."""


@dataclass(frozen=True)
class LocalFile:
    """A file in use as a plugin: where it was named, the SHA-256 of its bytes, what it supplies."""

    path: Path
    digest: str
    plugin: Plugin = field(compare=False)

    @property
    def cached(self) -> Path:
        """The file with the same bytes in the user's cache."""
        return _copy(self.digest, self.path)


_FILES: dict[str, LocalFile] = {}  # by distribution


def local_files() -> tuple[LocalFile, ...]:
    """The files in use, in the order in which they came."""
    return tuple(_FILES.values())


def local_file(distribution: str) -> LocalFile | None:
    """The file that is that distribution; None where it is none."""
    return _FILES.get(distribution)


def use_file(path: Path | str) -> LocalFile:
    """Load the file's plugin, unless it is in use already; the catalogue has it from then on.

    Raises:
        InputError: there is no such file, or its name cannot be a module's here.
        PluginError: it raises, or breaks the contract.
    """
    path = expand_user(path).absolute()
    try:
        content = path.read_bytes()
    except OSError as error:
        hint = "--plugin takes a Python file."
        raise InputError(f"the plugin {path} cannot be read: {error.strerror}", hint) from None
    return _use(path, content)


def use_recorded(records: Iterable[Mapping[str, Any]]) -> None:
    """Use the files that a run was made with, as they were then, by the `plugins` in its lock.

    Raises:
        PluginError: another file of that name is in use, or the user has never named this one.
        DataError: a record is none.
    """
    for record in records:
        try:
            path, digest = Path(str(record["file"])), str(record["digest"])
        except (TypeError, KeyError):
            raise DataError("the lock is damaged: its plugins are no list of files") from None
        file = _FILES.get(canonical_name(path.stem))
        what = f"the run was made with the plugin {path}"
        # The record's text leads nowhere outside the cache.
        is_name = len(digest) == 64 and digest.isalnum() and path.stem.isidentifier()
        copy = _copy(digest, path) if is_name else None
        if file is None and copy is not None and copy.is_file():
            file = _use(path, copy.read_bytes())
        if file is None:
            raise PluginError(
                f"{what}, and a run's record alone gets no file executed",
                f"Read it; where it is what you trust, say --plugin {path}.",
            )
        if file.digest != digest:
            hint = "Leave --plugin out, or name what it was."
            raise PluginError(f"{what}: {file.path} is another file now", hint)


def _use(path: Path, content: bytes) -> LocalFile:
    import hashlib  # not at the top: it takes milliseconds, and every command imports this module

    digest, name, module = hashlib.sha256(content).hexdigest(), canonical_name(path.stem), path.stem
    if (known := _FILES.get(name)) is not None:
        if known.digest == digest:
            return known
        if known.path == path:
            what = f"the plugin {path} has changed since this process took it"
            raise InputError(what, "Start Python, or the notebook's kernel, anew.")
        raise InputError(
            f"{path} and {known.path} would be one plugin, {name}", "Rename one of the files."
        )
    _refuse_name(path)
    copy = _copy(digest, path)
    if not copy.is_file() or copy.read_bytes() != content:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(copy) as file:
            file.write(content)
    sys.path.insert(0, str(copy.parent))  # workers have this process's sys.path
    importlib.invalidate_caches()
    blank = Plugin(module, module, name, LOCAL_VERSION, API)
    plugin = load_plugin(blank, lambda: importlib.import_module(module))
    if plugin.status != "ok":
        sys.path.remove(str(copy.parent))
        sys.modules.pop(module, None)
        raise PluginError(f"the plugin {path} cannot be used: {plugin.cause}")
    _FILES[name] = LocalFile(path, digest, plugin)
    return _FILES[name]


def _refuse_name(path: Path) -> None:
    """Stop where the stem is no name for a module, or is another module's already."""
    stem = path.stem
    if path.suffix != ".py" or not stem.isidentifier() or not stem[0].isalpha():
        raise InputError(
            f"the plugin {path} is imported as a module, and its name cannot be a module's",
            "Call it by letters, digits and _, such as my_part.py.",
        )
    found = sys.modules.get(stem) or importlib.util.find_spec(stem)
    origin = getattr(found, "origin", None) or getattr(found, "__file__", None)
    if found is not None and not (origin and Path(origin).resolve() == path.resolve()):
        raise InputError(
            f"the plugin {path} would hide the module {stem} ({origin or 'built in'})",
            "Rename the file.",
        )


def _copy(digest: str, path: Path) -> Path:
    return cache_dir() / "plugins" / digest / f"{path.stem}.py"
