"""What a user names to be evaluated, found without torch: what is wrong with it is told at once."""

from __future__ import annotations

from pathlib import Path

from simsiam_zoo.errors import InputError
from simsiam_zoo.recipe.lock import read_lock, refuse_missing

LIBRARY = "timm:"


def run_of(source: str) -> Path | None:
    """The run's folder that `source` is or lies in; None where it is none."""
    path = Path(source)
    above = [path] if path.is_dir() else [path.parent, path.parent.parent]
    found = (folder for folder in above if (folder / "recipe.toml").is_file())
    return next(found, None) if path.exists() else None


def find_run(source: str, preset: str | None = None) -> Path | None:
    """`run_of` a run whose plugins are here; None for a model of timm's.

    Raises InputError where `source` is neither, or the run is given a `preset`; DataError and
    PluginError as of the run's lock.
    """
    run = run_of(source)
    if run is None:
        if not source.startswith(LIBRARY):
            raise InputError(
                f"there is no run, checkpoint or model {source!r}",
                "Say a run's folder, a checkpoint in one, or timm:NAME;"
                " `simsiam-zoo import` makes a run of other weights.",
            )
        return None
    if preset is not None:
        raise InputError(f"{source} has its own recipe, so no --preset")
    refuse_missing(read_lock(run))
    return run
