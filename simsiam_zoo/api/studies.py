"""Studies: planned, run, reported. `ablate`, `report`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simsiam_zoo.api.given import preset_of
from simsiam_zoo.api.results import RELOAD, StudyResults
from simsiam_zoo.errors import InputError, ZooError

if TYPE_CHECKING:
    from simsiam_zoo.studies.launcher import Resources
    from simsiam_zoo.studies.plan import StudyPlan
    from simsiam_zoo.studies.selection import Selection
    from simsiam_zoo.studies.study import Study


@dataclass(frozen=True)
class PlannedStudy:
    """A study that is valid and has run nothing yet. `jobs`: how many runs go at once.

    `study`: by what its arms get the values that are chosen for them; None: they get none.
    """

    plan: StudyPlan
    study: Study | None = field(repr=False)
    folder: Path
    selection: Selection
    jobs: int
    resources: Resources

    def estimate(self, *, quiet: bool = False) -> dict[str, Any]:
        """The plan as plain values, what is complete of it, and the seconds that the rest takes.

        A few steps of each arm are timed for it: what `simsiam-zoo ablate --dry-run --json` prints.
        """
        from simsiam_zoo.runtime.progress import open_progress
        from simsiam_zoo.studies.estimate import describe_plan

        with open_progress(quiet) as progress:
            gpus = self.resources.gpus
            return describe_plan(
                self.plan, self.folder, self.jobs, self.selection, progress, gpus=gpus
            )

    def seeds_for(self, points: float, earlier: Path | str | None = None) -> dict[str, Any]:
        """How many `seeds` tell a difference of so many points from the base.

        By the spread in the results of the study in `earlier`, by default this one's own folder.
        InputError: there are none.
        """
        from simsiam_zoo.studies.detect import plan_seeds

        return plan_seeds(self.plan, Path(earlier or self.folder), points)

    def run(
        self, *, launcher: str = "local", watch: bool = False, quiet: bool = False
    ) -> StudyResults:
        """Run what is not complete, and report. See `ablate` for the arguments and errors.

        Where no run came to its end, the results say so in `failed`.
        """
        from rich.console import Console

        from simsiam_zoo.catalog import catalog
        from simsiam_zoo.report.write import publish
        from simsiam_zoo.runtime.machine import has_nvidia_gpu
        from simsiam_zoo.studies.launcher import SHARED_GPU, create_launcher
        from simsiam_zoo.studies.plan import missing_data, told_once
        from simsiam_zoo.studies.running import StudyProgress, run_study
        from simsiam_zoo.studies.tuning import choose

        plan, folder, study = self.plan, self.folder, self.study
        starter = create_launcher(catalog().resolve("launcher", launcher))
        progress = StudyProgress(None if quiet else Console(stderr=True))
        if missing := missing_data(plan):
            progress.say(f"on this machine: {missing}")
        for told in told_once((arm.label, arm.warnings) for arm in plan.own_arms()):
            progress.say(told)
        for arm in plan.arms:
            if arm.not_run:
                progress.say(f"{arm.label} is not run: {arm.not_run}")
        if self.jobs > 1 and not self.resources.gpus and has_nvidia_gpu():
            progress.say(SHARED_GPU.format(self.jobs))
        reload = RELOAD if watch else 0
        if watch:
            progress.say(f"{folder / 'report.html'} reloads itself every {reload} s")
        arms = self.selection.arms(plan)
        try:
            ended = run_study(
                plan,
                folder,
                starter,
                jobs=self.jobs,
                resources=self.resources,
                progress=progress,
                selection=self.selection,
                changed=lambda: publish(folder, reload),
                every=reload or math.inf,
                choose=lambda plan: choose(plan, study, folder, ended=arms) if study else plan,
            )
        except ZooError:
            if (folder / "study.json").exists():
                publish(folder)  # what was done so far can be read
            raise
        results = publish(folder)
        return StudyResults(folder, results, _failure(results, [code for _, code in ended]))


def _failure(results: dict[str, Any], codes: list[int]) -> ZooError | None:
    """An arm's failure is a result; where all fail alike, the study is what is wrong."""
    runs = [run for arm in results["arms"] for run in arm["runs"]]
    if any(run["state"] == "done" for run in runs):
        return None
    told = [run["error"] for run in runs if run["error"]]
    told += [each["why"] for each in results["not_run"]]  # those that were to choose values failed
    failed = ZooError(f"no run came to its end; the first one: {told[0]}")
    failed.exit_code = next((code for code in codes if code > 0), 1)
    return failed


def plan_study(
    study: str | Path | Mapping[str, Any],
    *,
    preset: str | None = None,
    seeds: Sequence[int | str] = (),
    metrics: Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
    tune: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    again: Sequence[str] = (),
    out: Path | str | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    gpus: float = 0.0,
    command: str = "",
) -> PlannedStudy:
    """A study as `ablate` would run it, checked and sized: `simsiam-zoo ablate --dry-run`.

    Its `estimate()` says what it takes, its `run()` runs it. `command` is the command line that
    asked for it, for the report. Arguments and errors as of `ablate`.
    """
    from simsiam_zoo.studies.launcher import Resources, default_jobs
    from simsiam_zoo.studies.plan import plan_study as plan_arms
    from simsiam_zoo.studies.selection import select
    from simsiam_zoo.studies.study import DECIDED
    from simsiam_zoo.studies.tuning import choose

    settings = settings or {}
    name, read = _read(study, preset, settings)
    given = {"metrics": metrics, "threads": threads, "seeds": seeds}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value}
    if tune:
        changes["tune"] = _tune(read, tune)
    asked = read.changed(changes | {"base": read.on_base(settings)})
    for path, key in DECIDED.items():
        decided = {str(each) for each in asked.decided(key)}
        if path in settings and {str(settings[path])} != decided:
            raise InputError(f"{path} is the same in all arms", f"Say {key} (--{key}).")
    plan = plan_arms(name, asked, command)
    selection = select(plan, only, again)
    folder = Path(out) if out else Path("runs") / _folder_name(name, plan)
    plan = choose(plan, asked, folder)
    resources = Resources(cpus=plan.threads, gpus=gpus)
    running = default_jobs(resources) if jobs is None else jobs
    if running < 1:
        raise InputError(f"{running} runs at once come to no end", "Say jobs=1 or more.")
    return PlannedStudy(plan, asked, folder, selection, running, resources)


def _read(
    study: str | Path | Mapping[str, Any], preset: str | None, settings: Mapping[str, object]
) -> tuple[str, Study]:
    """What to call the study, and the study as it is written."""
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.studies.study import parse_study, read_study

    if not isinstance(study, Mapping):
        return read_study(str(study), preset, lambda: str(preset_of(settings, None)))
    tree = dict(study)
    if isinstance(base := tree.get("base"), Recipe):
        tree["base"] = base.to_dict()
    name = re.sub(r"\W+", "-", str(tree.get("title", "")).lower()).strip("-")
    return name or "study", parse_study(tree, "the study", preset)


def _tune(study: Study, given: Mapping[str, Any]) -> dict[str, Any]:
    """The study's `[tune]` with the values of the recipe's keys in `given` as its grid.

    A key that is one of `[tune]`'s own, `length`, states that key.
    """
    from simsiam_zoo.studies.study import Tune

    stated: dict[str, Any] = study.tune.model_dump() if study.tune else {}
    stated |= {key: value for key, value in given.items() if key in Tune.model_fields}
    grid = {key: value for key, value in given.items() if key not in Tune.model_fields}
    return stated | ({"grid": grid, "ranges": {}, "beside": ()} if grid else {})


def _folder_name(study: str, plan: StudyPlan) -> str:
    data = plan.arms[0].recipe.data_word()
    return "-".join(filter(None, (study, plan.preset.replace("/", "-"), data)))


def ablate(
    study: str | Path | Mapping[str, Any],
    *,
    preset: str | None = None,
    seeds: Sequence[int | str] = (),
    metrics: Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
    tune: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    again: Sequence[str] = (),
    out: Path | str | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    gpus: float = 0.0,
    launcher: str = "local",
    watch: bool = False,
    quiet: bool = False,
) -> StudyResults:
    """Train a base recipe and its substitutions, measure, judge and compare them.

    The same call again goes on with a study that was interrupted; arms that are complete are not
    run twice. Each run is a process of its own. Progress goes to stderr.

    Args:
        study: a study's name, a TOML file, or what such a file holds as a dict, whose `base` may
            be a `Recipe`.
        preset, seeds, metrics, threads: in place of the study's own.
        settings: keys of the base recipe by dotted path.
        tune: values by key of the recipe to choose among, for every arm, on validation images;
            and keys of the study's `[tune]`: `{"optim.lr": [0.5, 1], "length": 1}`.
        only: run these arms alone, by name or label.
        again: run these arms anew; what they left is kept beside.
        out: the study's folder; by default runs/STUDY-PRESET.
        jobs: runs at once; by default those for which there is room.
        gpus: of a run; with 0.25 four share one.
        launcher: what starts the runs, a spec.
        watch: keep report.html up to date, and reloading itself.
        quiet: show no progress.

    Raises:
        InputError: the study, a name in it or a value is wrong, or the folder is something else's.
        PluginError: a component cannot be used.
        StoppedError: a signal asked to stop; what was done is saved.
        ZooError: no run came to its end. A single arm's failure is a result.
    """
    planned = plan_study(
        study,
        preset=preset,
        seeds=seeds,
        metrics=metrics,
        settings=settings,
        tune=tune,
        only=only,
        again=again,
        out=out,
        jobs=jobs,
        threads=threads,
        gpus=gpus,
    )
    return planned.run(launcher=launcher, watch=watch, quiet=quiet).or_raise()


def write_report(study: Path | str) -> StudyResults:
    """Write a study's report anew from its runs' folders, also while it runs.

    InputError: there is no study in the folder. DataError: its plan is damaged.
    """
    from simsiam_zoo.report.write import publish

    folder = Path(study)
    return StudyResults(folder, publish(folder))
