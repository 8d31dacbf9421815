"""A small search for values that a run may lack: `tune`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simsiam_zoo.api.given import RunLike, named
from simsiam_zoo.api.results import Page
from simsiam_zoo.api.studies import PlannedStudy
from simsiam_zoo.errors import InputError

if TYPE_CHECKING:
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.studies.plan import StudyPlan


@dataclass(frozen=True)
class Tuned:
    """What a search found: `chosen`, by key of the recipe, and `recipe`, the run's own with it.

    `candidates`, the run's own values first: `values`, `top1` on validation images, `runs`;
    `command` trains with what was chosen.
    """

    folder: Path
    candidates: list[dict[str, Any]] = field(repr=False)
    chosen: dict[str, Any]
    recipe: Recipe = field(repr=False)
    command: str

    @property
    def report(self) -> Page:
        """The same as a page."""
        return Page(self.folder / "report.html")


def tune(
    run: RunLike,
    *,
    points: int = 8,
    length: float = 0.5,
    halving: int = 0,
    stop_on_collapse: bool = False,
    metric: str = "knn",
    out: Path | str | None = None,
    jobs: int | None = None,
    quiet: bool = False,
    command: str = "",
) -> Tuned:
    """Search for a better lr, predictor's lr and crop scale than a run has: `simsiam-zoo tune`.

    Each candidate is trained on a part of the training images and measured on the rest; no test
    image is read. The same call again goes on with what was interrupted.

    Args:
        run: a run, its folder, or a recipe's file.
        points: draws.
        length: the share of the run's epochs that a candidate has.
        halving: times that the worse half of the candidates stops on the way.
        stop_on_collapse: end a candidate once it has collapsed.
        metric: the protocol that chooses.
        out: where its runs go; by default RUN-tune.
        jobs: runs at once; by default as many as there are cores.
        quiet: show no progress.
        command: the command line that asked for it, for the report.

    Raises:
        InputError: there is no such run, or no candidate came to a figure.
        StoppedError: a signal asked to stop; what was done is saved.
    """
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.recipe.lock import train_command
    from simsiam_zoo.runtime.machine import available_cores
    from simsiam_zoo.studies.launcher import Resources
    from simsiam_zoo.studies.plan import plan_study
    from simsiam_zoo.studies.selection import EVERY_ARM
    from simsiam_zoo.studies.tuning import best, study_of_run

    path = Path(named(run))
    file = _recipe_of(path)
    folder = Path(out) if out else _beside(path)
    keys = {"points": points, "length": length, "metric": metric, "halving": halving}
    study = study_of_run(Recipe.of_run(file), keys | {"stop_on_collapse": stop_on_collapse})
    plan = plan_study("tune", study, command)
    room = Resources(cpus=plan.threads)
    planned = PlannedStudy(plan, None, folder, EVERY_ARM, jobs or available_cores(), room)
    (arm,) = planned.run(quiet=quiet).data["arms"]
    candidates = arm["candidates"]
    chosen = best(plan.arms[0].candidates, [each["top1"] for each in candidates])
    if chosen is None:
        raise _nothing(candidates, folder)
    sets = " ".join(f"--set {key}={value:g}" for key, value in chosen.items())
    way = train_command(file, sets)
    _say_chosen(plan, folder, chosen, way)
    return Tuned(folder, candidates, chosen, Recipe.make(None, file, chosen), way)


def _say_chosen(plan: StudyPlan, folder: Path, chosen: dict[str, Any], way: str) -> None:
    """Have the search's page say what was found, and that nothing is trained with it yet."""
    from simsiam_zoo.report.write import publish
    from simsiam_zoo.studies.plan import write_plan

    plan.arms[0].chosen = chosen
    plan.arms[0].not_run = f"a search only; what it found is trained by: {way}"
    write_plan(plan, folder)
    publish(folder)


def _recipe_of(path: Path) -> Path:
    """The recipe's file that `path` is or holds; PluginError: a plugin of the run is not."""
    from simsiam_zoo.recipe.lock import read_lock, refuse_missing

    file = path / "recipe.toml" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{path} is no run: it has no recipe.toml", "Name a run's folder.")
    if (file.parent / "lock.toml").is_file():  # else the part's name would be told as unknown
        refuse_missing(read_lock(file.parent))
    return file


def _beside(path: Path) -> Path:
    """RUN-tune, or of a recipe's file its name without the ending."""
    if path.name in ("", ".."):  # `simsiam-zoo tune .`
        path = path.resolve()
    own = path.name if path.is_dir() else path.stem  # a folder's name may have a dot: lr0.5
    return path.with_name(f"{own}-tune")


def _nothing(candidates: list[dict[str, Any]], folder: Path) -> InputError:
    runs = [each for row in candidates for each in row["runs"]]
    told = next(filter(None, (each["error"] or each["reason"] for each in runs)), "none has ended")
    return InputError(f"no candidate came to a figure: {told}", f"Their logs are in {folder}.")
