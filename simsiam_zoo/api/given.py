"""What callers may give in several forms: a run, data, no preset."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from simsiam_zoo.catalog import Text
from simsiam_zoo.errors import InputError

if TYPE_CHECKING:
    from simsiam_zoo.training.run import Run


class HasFolder(Protocol):
    """A `Run`, or one that `runs` has found."""

    @property
    def folder(self) -> Path:
        """Where it is."""
        ...


RunLike = HasFolder | Path | str
"""A run, or its folder."""


def named(run: RunLike) -> str:
    """A run as a command line names it: its folder."""
    return str(getattr(run, "folder", run))


def opened(run: RunLike, device: str | None = None) -> Run:
    """The run itself. Raises as `load` does, and InputError where `device` is none.

    What is no run, a plugin that is missing and a wrong device are told before torch is imported.
    """
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.recipe.lock import read_lock, refuse_missing

    folder = Path(named(run))
    refuse_missing(read_lock(folder))
    if device is not None:
        Recipe.of_run(folder / "recipe.toml", {"training.device": Text(device)})
    from simsiam_zoo.training.run import Run, load

    return run if isinstance(run, Run) else load(named(run))


def data_settings(data: Path | str) -> dict[str, object]:
    """What `--data` sets in a recipe.

    InputError: a text is a recipe's file, or no dataset's name, but that of a folder without `./`
    perhaps.
    """
    from simsiam_zoo.catalog import catalog
    from simsiam_zoo.recipe.layers import dataset_spec

    # A `Path` is one, whatever it is called.
    data = f"./{data}" if isinstance(data, Path) and not data.is_absolute() else str(data)
    path, dataset = Path(data), dataset_spec(data)
    if path.suffix == ".toml" and path.is_file():
        way = f"A recipe: --recipe {shlex.quote(data)}."
        raise InputError(f"{data} is a TOML file, not shards", way)
    if isinstance(dataset, str):
        try:
            catalog().resolve("dataset", dataset)
        except InputError as error:
            if not path.exists():
                raise
            kind, spelled = "folder" if path.is_dir() else "file", shlex.quote(f"./{data}")
            here = f"There is a {kind} of that name: {spelled}."
            hint = f"{here} A path begins with ./, / or ~."
            raise InputError(error.what, f"{hint} {error.hint or ''}".rstrip()) from None
    return {"dataset": dataset}


def preset_of(
    settings: Mapping[str, object], preset: str | None, file: str | None = None
) -> str | None:
    """The preset that is named, or that goes with the data that `settings` state.

    It is told where it is not the default, and None where the recipe's `file` or `settings` say it.
    """
    from simsiam_zoo.recipe.naming import preset_for
    from simsiam_zoo.recipe.recipe import DEFAULT_PRESET
    from simsiam_zoo.runtime.progress import tell

    if preset is not None or file is not None or "preset" in settings:
        return preset
    fitting = preset_for(settings, DEFAULT_PRESET)
    if fitting != DEFAULT_PRESET:
        tell(f"preset {fitting}, for the data is not that of {DEFAULT_PRESET} (--preset names one)")
    return fitting
