"""`simsiam-zoo ablate`: a study of substitutions, from its file to its report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import (
    print_columns,
    print_figures,
    print_files,
    print_heading,
    print_json,
    print_line,
)
from simsiam_zoo.errors import InputError

if TYPE_CHECKING:
    from simsiam_zoo.api.results import StudyResults
    from simsiam_zoo.api.studies import PlannedStudy


_FILES = {
    "report.html": "the report: opens offline",
    "report.md": "the same for a repository",
    "results.csv": "a row for each run",
    "results.json": "all of it",
}


@click.command()
@click.argument("study", required=False, shell_complete=options.complete_component("study"))
@click.option("--list", "listed", is_flag=True, help="The studies that come by name.")
@options.preset("The base's preset (default: the study's own, or mnist-5k).")
@click.option("--seeds", metavar="N,N,...", help="In place of the study's.")
@options.spec(
    "--metric",
    "metrics",
    kind="protocol",
    multiple=True,
    help="Protocols in place of the study's; may be repeated.",
)
@options.assignments
@click.option(
    "--tune",
    "tuned",
    metavar="KEY=V,V,...",
    multiple=True,
    help="Choose among these values for every arm, on validation images; or a key of [tune]:"
    " length=1, halving=2. May be repeated.",
)
@click.option("--only", metavar="ARM", multiple=True, help="Run this arm alone; may be repeated.")
@click.option(
    "--again",
    metavar="ARM",
    multiple=True,
    help="Run this arm anew; its earlier runs are kept beside. May be repeated.",
)
@click.option("--out", metavar="STUDY", help="The study's folder (default: runs/STUDY-PRESET).")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    metavar="N",
    help="Runs at once (default: those there is room for).",
)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads of a run (1).")
@click.option(
    "--gpus",
    type=click.FloatRange(0),
    default=0.0,
    metavar="X",
    help="GPUs of a run; with 0.25, four share one.",
)
@options.spec(
    "--launcher", kind="launcher", default="local", show_default=True, help="What starts the runs."
)
@options.plugin_files
@click.option("--watch", is_flag=True, help="Keep report.html up to date, and reloading itself.")
@click.option("--dry-run", is_flag=True, help="Print the plan and an estimate; run nothing.")
@click.option(
    "--detect",
    type=click.FloatRange(0, 100, min_open=True),
    metavar="POINTS",
    help="With --dry-run: how many seeds tell such a difference.",
)
@click.option(
    "--from", "earlier", metavar="STUDY", help="The study that --detect has the spread of (--out)."
)
@options.as_json("the plan, or the results,")
@options.quiet
def ablate(
    study: str | None,
    listed: bool,
    preset: str | None,
    seeds: str | None,
    assignments: tuple[str, ...],
    tuned: tuple[str, ...],
    launcher: str,
    watch: bool,
    dry_run: bool,
    detect: float | None,
    earlier: str | None,
    as_json: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """Train a base recipe and its substitutions, measure, judge and compare them.

    STUDY is a study's name or a TOML file. The same command again goes on with a study that was
    interrupted; arms that are complete are not run twice.

    \b
    Examples:
      simsiam-zoo ablate --list
      simsiam-zoo ablate five-parts --dry-run
      simsiam-zoo ablate predictor --preset mnist-5k --seeds 0,1,2
      simsiam-zoo ablate my-study.toml --out runs/mine --jobs 4
      simsiam-zoo ablate predictor --only base --only "no predictor"
      simsiam-zoo ablate predictor --dry-run --detect 2
      simsiam-zoo ablate five-parts --tune optim.lr=0.25,0.5,1,2
      simsiam-zoo ablate five-parts --watch
    """
    if listed:
        from simsiam_zoo.cli.list import list_

        click.get_current_context().invoke(list_, kind="study", as_json=as_json)
        return
    _refuse_stray(dry_run, detect, earlier)
    from simsiam_zoo.api.studies import plan_study

    if study is None:
        raise InputError("no study is named", "`simsiam-zoo ablate --list` shows them.")
    settings = options.settings_of({"preset": preset}, assignments)
    chosen = settings.pop("preset", None)
    planned = plan_study(
        study,
        preset=None if chosen is None else str(chosen),
        seeds=seeds.split(",") if seeds else (),
        settings=settings,
        tune=_tuned(tuned),
        command=_command_of_all(),
        **asked,
    )
    if dry_run:
        _describe(planned, earlier, detect, as_json)
        return
    results = planned.run(launcher=launcher, watch=watch, quiet=quiet)
    print_study(results, as_json)
    results.or_raise()


def print_study(results: StudyResults, as_json: bool) -> None:
    """Print a study's results."""
    if as_json:
        print_json(results.data)
    else:
        print_results(results.data, results.folder)


def _refuse_stray(dry_run: bool, detect: float | None, earlier: str | None) -> None:
    if detect is not None and not dry_run:
        raise InputError("--detect plans and runs nothing", "Give --dry-run beside it.")
    if earlier is not None and detect is None:
        raise InputError("--from is of --detect", "Give --detect POINTS beside it.")


def _describe(
    planned: PlannedStudy, earlier: str | None, detect: float | None, as_json: bool
) -> None:
    """Print the plan."""
    from simsiam_zoo.cli.study_table import print_plan

    found = planned.seeds_for(detect, earlier) if detect else None
    described = planned.estimate() | {"detect": found}
    if as_json:
        print_json(described)
    else:
        print_plan(described)


def _tuned(words: Sequence[str]) -> dict[str, Any]:
    """What `--tune KEY=V,V` states: a list of values by key; of a key of `[tune]` its value."""
    from simsiam_zoo.catalog import Text
    from simsiam_zoo.recipe.layers import literals
    from simsiam_zoo.studies.study import Tune

    given: dict[str, Any] = {}
    for word in words:
        key, _, text = word.partition("=")
        if not key or not text:
            raise InputError(f"--tune takes KEY=VALUE,VALUE,... and not {word!r}")
        values = [literals(Text(value.strip())) for value in text.split(",")]
        given[key] = values[0] if key in Tune.model_fields and key != "seeds" else values
    return given


def _command_of_all() -> str:
    """The command line without --only and --again: what leads to the whole study."""
    words, kept = iter(sys.argv[1:]), ["simsiam-zoo"]
    for word in words:
        if word in ("--only", "--again"):
            next(words, None)
        elif not word.startswith(("--only=", "--again=")):
            kept.append(word)
    return shlex.join(kept)


def print_results(results: dict[str, Any], folder: Path) -> None:
    """Print the report's table of arms, as much as the terminal has room for, and where it is."""
    from simsiam_zoo.cli.study_table import fitting
    from simsiam_zoo.report import content
    from simsiam_zoo.report.how_sure import in_one_line
    from simsiam_zoo.report.study import read_results
    from simsiam_zoo.report.tuned import tuned

    study = read_results(results)
    columns, left_out = fitting(content.arm_columns(study))
    print_line()
    print_heading(study.title)
    print_figures([[*columns], *zip(*columns.values(), strict=True)])
    notes = [f"no room here for {', '.join(left_out)}: see the report"] if left_out else []
    if any(text.endswith("✗") for text in columns["Verdict"]):
        notes += ["✗: another verdict was expected; the report says which"]
    notes += [f"{a.label}: the same as {a.same_as}, not run again" for a in study.arms if a.same_as]
    if any("mixed" in text for text in columns["Verdict"]):
        notes += [f"{a.label}: {a.verdict}" for a in study.arms if a.mark == "mixed"]
    notes += [
        *content.base_figure(study),
        *filter(None, [in_one_line(study)]),
        *tuned(study),
        *(f"{arms}: {note}" if arms else note for arms, note in content.notes(study)),
        *(f"failed: {runs}: {why}" for runs, why in content.failures(study)),
        *(f"not run: {runs}: {why}" for runs, why in content.not_run(study)),
    ]
    if study.stale:
        notes += [
            f"stale, of arms that were changed, taken out or run anew: {' '.join(study.stale)}"
        ]
    for note in notes:
        print_columns([[note]])
    print_files(folder, _FILES)
