"""A local file as a plugin, for as long as the process lives: `--plugin ./part.py`.

The file is read once: what is hashed is what runs. Its module is called by the file's stem, so that
a target may be in the same file (`part:Projector`), and so is its distribution. A copy is kept in
the user's cache, by its digest. From there workers import it; and that it is there says that the
user has named this very file before, without which no run's record gets it executed: a run's folder
may come from anywhere.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from simsiam_zoo.catalog.discovery import API, Plugin, load, normalize
from simsiam_zoo.errors import DataError, InputError, PluginError

VERSION = "local"
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
    path = Path(path).expanduser().absolute()
    content = _read(path)
    digest = _sha256(content)
    name = normalize(path.stem)
    if (known := _FILES.get(name)) is not None:
        if known.digest == digest:
            return known
        raise InputError(
            f"{path} and {known.path} would be one plugin, {name}", "Rename one of the files."
        )
    _refuse_name(path)
    copy = _copy_path(digest, path.stem)
    plugin = load(
        Plugin(path.stem, path.stem, name, VERSION, API), lambda: _module(path, content, copy)
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
    for entry in records:
        try:
            name, digest = normalize(str(entry["distribution"])), str(entry["digest"])
            path = Path(str(entry["file"]))
        except (TypeError, KeyError):
            raise DataError("the lock is damaged: its plugins are no list of files") from None
        given = _FILES.get(name)
        here = given.digest if given is not None else _digest(path)
        what = f"the run was made with the plugin {path}"
        if here != digest:
            where = path if given is None else given.path
            state = "is missing" if here is None else "is another file now"
            raise PluginError(f"{what}: {where} {state}", _way_back(digest, path.stem))
        if given is None:
            if not _copy_path(digest, path.stem).is_file():
                raise PluginError(
                    f"{what}, and a run's record alone gets no file executed",
                    f"Read it; where it is what you trust, say --plugin {path}.",
                )
            use_file(path)


def _way_back(digest: str, stem: str) -> str:
    """Where the file as it was can be had. The record's text leads nowhere outside the cache."""
    named = len(digest) == 64 and digest.isalnum() and stem.isidentifier()
    copy = _copy_path(digest, stem) if named else None
    if copy is not None and copy.is_file():
        return f"A copy of what it was is here: say --plugin {copy}."
    return "Put back what it was, or say where that is: --plugin FILE."


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"the plugin {path} cannot be read: {error.strerror}", "--plugin takes a Python file."
        ) from None


def _sha256(content: bytes) -> str:
    import hashlib  # not at the top: it takes milliseconds, and every command imports this module

    return hashlib.sha256(content).hexdigest()


def _digest(path: Path) -> str | None:
    try:
        return _sha256(path.read_bytes())
    except (OSError, ValueError):  # a name with a null byte is a ValueError
        return None


def _refuse_name(path: Path) -> None:
    """Stop where the stem is no name for a module, or is another module's already."""
    stem = path.stem
    if path.suffix != ".py" or not stem.isidentifier() or not stem[0].isalpha():
        raise InputError(
            f"the plugin {path}: it is imported as a module, and its name is none",
            "Call it by letters, digits and _, such as my_part.py.",
        )
    found = sys.modules.get(stem) or importlib.util.find_spec(stem)
    origin = getattr(found, "origin", None) or getattr(found, "__file__", None)
    if found is not None and not (origin and Path(origin).resolve() == path.resolve()):
        raise InputError(
            f"the plugin {path} would hide the module {stem} ({origin or 'built in'})",
            "Rename the file.",
        )


def _copy_path(digest: str, stem: str) -> Path:
    from simsiam_zoo.runtime.folders import cache_dir

    return cache_dir() / "plugins" / digest / f"{stem}.py"


def _module(path: Path, content: bytes, copy: Path) -> ModuleType:
    """Execute the file as the module of its stem, with its copy where workers will find it."""
    from simsiam_zoo.runtime.folders import atomic_write

    if (imported := sys.modules.get(path.stem)) is not None:
        return imported  # by its own name, from the current folder: not a second time
    copy.parent.mkdir(parents=True, exist_ok=True)
    if not copy.is_file() or copy.read_bytes() != content:
        with atomic_write(copy) as file:
            file.write(content)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # it ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    if str(copy.parent) not in sys.path:
        sys.path.insert(0, str(copy.parent))
    exec(compile(content, str(path), "exec"), module.__dict__)
    return module
