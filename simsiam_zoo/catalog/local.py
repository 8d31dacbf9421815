"""A local file as a plugin, for as long as the process lives: `--plugin ./part.py`.

The file is read once: what is hashed is what runs. Its module is called by the file's stem, so that
a target may be in the same file (`part:Projector`), and so is its distribution. What was read is
kept in the user's cache, by its digest: workers and the jobs of a study import that, also when the
file is edited meanwhile. It also shows that this user has named this very file before, without
which no run's record gets it executed: a run's folder may come from anywhere.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simsiam_zoo.catalog.discovery import API, Plugin, canonical_name, load_plugin
from simsiam_zoo.errors import DataError, InputError, PluginError
from simsiam_zoo.runtime.folders import atomic_write, cache_dir, expand_user

LOCAL_VERSION = "local"
"""What stands for the version of a file's distribution; its digest tells one from another."""


@dataclass(frozen=True)
class LocalFile:
    """A file in use as a plugin.

    Args:
        path: absolute.
        digest: SHA-256 of its bytes, 64 hex digits.
        plugin: what it supplies.
    """

    path: Path
    digest: str
    plugin: Plugin = field(compare=False)

    @property
    def source(self) -> str:
        """The digest as locks give it for the source of a component."""
        return self.digest[:16]

    @property
    def cached(self) -> Path:
        """The file with the same bytes in the user's cache."""
        return _cached(self.digest, self.path.stem)

    def record(self) -> dict[str, str]:
        """What a lock has of it, from which `use_recorded` finds it again."""
        name = self.plugin.distribution
        return {"distribution": name, "file": str(self.path), "digest": self.digest}


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
    digest, name = _sha256(content), canonical_name(path.stem)
    if (known := _FILES.get(name)) is not None:
        if known.digest == digest:
            return known
        raise InputError(
            f"{path} and {known.path} would be one plugin, {name}", "Rename one of the files."
        )
    _refuse_name(path)
    plugin = load_plugin(
        Plugin(path.stem, path.stem, name, LOCAL_VERSION, API),
        lambda: sys.modules.get(path.stem) or _execute(path, content, digest),
    )
    if plugin.status != "ok":
        sys.modules.pop(path.stem, None)
        raise PluginError(f"the plugin {path} cannot be used: {plugin.cause}")
    _FILES[name] = LocalFile(path, digest, plugin)
    return _FILES[name]


def use_recorded(records: Iterable[Mapping[str, Any]]) -> None:
    """Use the files that a run was made with, unless those of their names are in use.

    Args:
        records: as `LocalFile.record` gives them, from the run's lock.

    Raises:
        PluginError: a file is missing, or is another one now, or the user has never named it.
        DataError: a record is none.
    """
    for record in records:
        try:
            name, digest = canonical_name(str(record["distribution"])), str(record["digest"])
            path = Path(str(record["file"]))
        except (TypeError, KeyError):
            raise DataError("the lock is damaged: its plugins are no list of files") from None
        used = _FILES.get(name)
        what = f"the run was made with the plugin {path}"
        # The record's text leads nowhere outside the cache.
        named = len(digest) == 64 and digest.isalnum() and path.stem.isidentifier()
        cached = _cached(digest, path.stem) if named else None
        trusted = cached is not None and cached.is_file()
        here = used.digest if used is not None else _digest(path)
        if here != digest:
            where = path if used is None else used.path
            state = "is missing" if here is None else "is another file now"
            raise PluginError(
                f"{what}: {where} {state}",
                f"A copy of what it was is here: say --plugin {cached}."
                if trusted
                else "Put back what it was, or say where that is: --plugin FILE.",
            )
        if used is None and not trusted:
            raise PluginError(
                f"{what}, and a run's record alone gets no file executed",
                f"Read it; where it is what you trust, say --plugin {path}.",
            )
        if used is None:
            use_file(path)


def _execute(path: Path, content: bytes, digest: str) -> object:
    """Run the file as the module of its stem, and let other processes find the same."""
    cached = _cached(digest, path.stem)
    cached.parent.mkdir(parents=True, exist_ok=True)
    if _digest(cached) != digest:
        with atomic_write(cached) as file:
            file.write(content)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # it ends in .py
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    if str(cached.parent) not in sys.path:
        sys.path.insert(0, str(cached.parent))
    exec(compile(content, str(path), "exec"), module.__dict__)
    return module


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


def _cached(digest: str, stem: str) -> Path:
    return cache_dir() / "plugins" / digest / f"{stem}.py"


def _digest(path: Path) -> str | None:
    try:
        return _sha256(path.read_bytes())
    except (OSError, ValueError):  # a name with a null byte is a ValueError
        return None


def _sha256(content: bytes) -> str:
    import hashlib  # not at the top: it takes milliseconds, and every command imports this module

    return hashlib.sha256(content).hexdigest()
