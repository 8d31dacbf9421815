"""`ablate --only` and `--again`: which arms of a study run, and which of them anew."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from simsiam_zoo.errors import InputError, did_you_mean
from simsiam_zoo.studies.job import is_held
from simsiam_zoo.studies.plan import StudyJob, StudyPlan

_LEFT = ("run", "status.json", "log.txt")
"""What tells a folder in which something was run from one that was only planned."""


@dataclass(frozen=True)
class Selection:
    """Names of arms: those that run (none: all that are not complete), those that run anew."""

    only: tuple[str, ...] = ()
    again: tuple[str, ...] = ()

    def arms(self, plan: StudyPlan) -> set[str]:
        """The names of the arms that belong to it."""
        return {*self.only, *self.again} if self.only else {arm.name for arm in plan.arms}

    def jobs(self, plan: StudyPlan, folder: Path, planned: bool = False) -> list[StudyJob]:
        """The plan's runs that belong to it, complete or not; `planned` as of `StudyPlan.jobs`."""
        arms = self.arms(plan)
        return [job for job in plan.jobs(folder, planned) if job.arm.name in arms]

    def flags(self) -> str:
        """What goes on with it on a command line: what runs anew has begun to."""
        names = dict.fromkeys([*self.only, *self.again]) if self.only else ()
        return "".join(f" --only {shlex.quote(name)}" for name in names)


EVERY_ARM = Selection()


def select(plan: StudyPlan, only: Sequence[str], again: Sequence[str]) -> Selection:
    """The arms that the words mean: names, or labels. Raises InputError for what is no arm."""
    given = ((words,) if isinstance(words, str) else words for words in (only, again))
    return Selection(*(tuple(_runs(plan, word) for word in words) for words in given))


def _runs(plan: StudyPlan, word: str) -> str:
    """The name of the arm that is meant, or of the one that is run in its place."""
    found = [arm for arm in plan.arms if arm.name == word]
    found = found or [arm for arm in plan.arms if arm.label == word]
    if not found:
        names = [arm.name for arm in plan.arms]
        hint = did_you_mean(
            word, {*names, *(arm.label for arm in plan.arms)}, f"Its arms are {', '.join(names)}."
        )
        raise InputError(f"the study has no arm {word!r}", hint)
    if len(found) > 1:
        names = [arm.name for arm in found]
        raise InputError(f"several arms are called {word!r}", f"Say {' or '.join(names)}.")
    if found[0].not_run is not None:
        raise InputError(f"arm {word!r} is not run: {found[0].not_run}")
    return found[0].same_as or found[0].name


def move_aside(jobs: Iterable[StudyJob]) -> dict[Path, Path]:
    """Move what the runs have left so far to where it is kept, so that they begin anew.

    `jobs/ARM/seed0` becomes `jobs/ARM.earlier-1/seed0`; the next time `.earlier-2`.

    Returns:
        Old folder → new one, of those in which something was run.

    Raises:
        InputError: a process is at work in one (none is moved then), or one cannot be moved.
    """
    used = [job.folder for job in jobs if any((job.folder / each).exists() for each in _LEFT)]
    for folder in used:
        if is_held(folder):
            raise InputError(f"a process is at work in {folder}", "Wait for it, or stop it.")
    moved: dict[Path, Path] = {}
    beside = {folder.parent: _free(folder.parent) for folder in used}
    for folder in used:
        target = beside[folder.parent] / folder.name
        try:
            target.parent.mkdir(exist_ok=True)
            moved[folder] = folder.rename(target)
        except OSError as error:
            raise InputError(f"{folder} cannot be moved to {target}: {error.strerror}") from None
    return moved


def _free(folder: Path) -> Path:
    number = 1
    while (free := folder.with_name(f"{folder.name}.earlier-{number}")).exists():
        number += 1
    return free
